// Host writes at any byte: WebGPU writes whole 32-bit words, so a word shared with other data is merged on the device.

/** Writes bytes at a byte offset of a buffer, in order with everything queued. */
export function writeBytes(device: GPUDevice, buffer: GPUBuffer, offset: number, bytes: Uint8Array<ArrayBuffer>): void {
  if (bytes.length === 0) return;
  const first = Math.ceil(offset / 4) * 4, last = Math.floor((offset + bytes.length) / 4) * 4;
  if (first > last) {
    mergeWord(device, buffer, offset, bytes);
    return;
  }
  if (first > offset) mergeWord(device, buffer, offset, bytes.subarray(0, first - offset));
  if (last > first) device.queue.writeBuffer(buffer, first, bytes.subarray(first - offset, last - offset));
  if (last < offset + bytes.length) mergeWord(device, buffer, last, bytes.subarray(last - offset));
}

const merges = new WeakMap<GPUDevice, GPUComputePipeline>();

/** Replaces some bytes of one word by a kernel, since the host does not know the others. */
function mergeWord(device: GPUDevice, buffer: GPUBuffer, offset: number, bytes: Uint8Array): void {
  let mask = 0, value = 0;
  bytes.forEach((byte, i) => {
    const shift = 8 * ((offset + i) % 4);
    mask |= 0xff << shift;
    value |= byte << shift;
  });
  let pipeline = merges.get(device);
  if (!pipeline) {
    pipeline = device.createComputePipeline({
      layout: "auto",
      compute: { module: device.createShaderModule({ label: "merge word", code: MERGE }), entryPoint: "main" },
    });
    merges.set(device, pipeline);
  }
  const parameters = device.createBuffer({ size: 16, usage: 0x40 | 0x08 /* UNIFORM | COPY_DST */ });
  device.queue.writeBuffer(parameters, 0, Uint32Array.of(Math.floor(offset / 4), mask, value, 0));
  const group = device.createBindGroup({
    layout: pipeline.getBindGroupLayout(0),
    entries: [{ binding: 0, resource: { buffer: parameters } }, { binding: 1, resource: { buffer } }],
  });
  const encoder = device.createCommandEncoder({ label: "merge word" });
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  pass.dispatchWorkgroups(1);
  pass.end();
  device.queue.submit([encoder.finish()]);
  parameters.destroy(); // after the queued work is done with it
}

const MERGE = `
@group(0) @binding(0) var<uniform> p: vec4u; // word, mask, value
@group(0) @binding(1) var<storage, read_write> words: array<u32>;

@compute @workgroup_size(1)
fn main() {
  words[p.x] = (words[p.x] & ~p.y) | p.z;
}`;
