// Whether subgroups are what the kernels take them for, and the kernels that use them.
import rowsText from "./kernels/rows_subgroups.wgsl" with { type: "text" };
import type { Kernel, SourceFile } from "./shader.ts";

const ROWS = "gpu/kernels/rows.wgsl";
const SUBGROUP_ROWS: SourceFile = { file: "gpu/kernels/rows_subgroups.wgsl", text: rowsText };

/** A kernel with its sums and maxima over rows by subgroups, to the same bits; one without such stays as it is. */
export function withSubgroups(kernel: Kernel): Kernel {
  if (!kernel.sources.some(({ file }) => file === ROWS)) return kernel;
  const sources = kernel.sources.map((source) => source.file === ROWS ? SUBGROUP_ROWS : source);
  return { ...kernel, name: `${kernel.name}/subgroups`, sources };
}

const PROBE = `
@group(0) @binding(0) var<storage, read_write> found: array<u32>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32) {
  let size = subgroupAdd(1u);
  var right = size >= 4u && size <= 128u && (size & (size - 1u)) == 0u;
  for (var distance = 1u; distance < size; distance *= 2u) {
    right = right && subgroupShuffleXor(thread, distance) == (thread ^ distance);
  }
  found[thread] = select(0u, size, right);
}`;

/** Whether threads of a workgroup lie in subgroups in order, which WGSL does not promise. Asks the device. */
export async function subgroupsInOrder(device: GPUDevice): Promise<boolean> {
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ label: "subgroups", code: PROBE });
  const pipeline = device.createComputePipeline({ layout: "auto", compute: { module, entryPoint: "main" } });
  if (await device.popErrorScope()) return false; // granted, and yet not compiled
  const found = device.createBuffer({ size: 1024, usage: 0x80 | 0x04 /* STORAGE | COPY_SRC */ });
  const readable = device.createBuffer({ size: 1024, usage: 0x01 | 0x08 /* MAP_READ | COPY_DST */ });
  const encoder = device.createCommandEncoder({ label: "subgroups" });
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(
    0,
    device.createBindGroup({
      layout: pipeline.getBindGroupLayout(0),
      entries: [{ binding: 0, resource: { buffer: found } }],
    }),
  );
  pass.dispatchWorkgroups(1);
  pass.end();
  encoder.copyBufferToBuffer(found, 0, readable, 0, 1024);
  device.queue.submit([encoder.finish()]);
  await readable.mapAsync(1 /* GPUMapMode.READ */);
  const sizes = new Uint32Array(readable.getMappedRange().slice(0));
  for (const buffer of [found, readable]) buffer.destroy();
  return sizes.every((size) => size > 0 && size === sizes[0]);
}
