// How long each operation of a program takes, by the device's own clock.
import type { ReadyDispatch } from "./dispatch.ts";

/** Queries WebGPU allows in one set; each operation takes two. */
const QUERIES_PER_SET = 4096;
const QUERY_RESOLVE_COPY_SRC = 0x200 | 0x04; // GPUBufferUsage.QUERY_RESOLVE | COPY_SRC
const MAP_READ_COPY_DST = 0x01 | 0x08; // GPUBufferUsage.MAP_READ | COPY_DST

/** Microseconds of each operation over one run, each in a pass of its own between two timestamps. */
export async function profileOperations(
  device: GPUDevice,
  ready: readonly ReadyDispatch[],
  operations: number,
): Promise<Float64Array> {
  const byOperation = Map.groupBy(ready, ({ op }) => op);
  const micros = new Float64Array(operations);
  const order = [...byOperation.keys()];
  for (let start = 0; start < order.length; start += QUERIES_PER_SET / 2) {
    const batch = order.slice(start, start + QUERIES_PER_SET / 2);
    const stamps = await timeBatch(device, batch.map((op) => byOperation.get(op)!));
    batch.forEach((op, i) => micros[op] = Number(stamps[2 * i + 1] - stamps[2 * i]) / 1000);
  }
  return micros;
}

async function timeBatch(
  device: GPUDevice,
  operations: readonly (readonly ReadyDispatch[])[],
): Promise<BigUint64Array> {
  const count = 2 * operations.length;
  const querySet = device.createQuerySet({ type: "timestamp", count });
  const resolved = device.createBuffer({ size: 8 * count, usage: QUERY_RESOLVE_COPY_SRC });
  const readable = device.createBuffer({ size: 8 * count, usage: MAP_READ_COPY_DST });
  const encoder = device.createCommandEncoder({ label: "profile" });
  operations.forEach((dispatches, i) => {
    const pass = encoder.beginComputePass({
      timestampWrites: { querySet, beginningOfPassWriteIndex: 2 * i, endOfPassWriteIndex: 2 * i + 1 },
    });
    for (const { pipeline, group, x, y } of dispatches) {
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(x, y);
    }
    pass.end();
  });
  encoder.resolveQuerySet(querySet, 0, count, resolved, 0);
  encoder.copyBufferToBuffer(resolved, 0, readable, 0, 8 * count);
  device.queue.submit([encoder.finish()]);
  await readable.mapAsync(1 /* GPUMapMode.READ */);
  const stamps = new BigUint64Array(readable.getMappedRange().slice(0));
  for (const buffer of [resolved, readable]) buffer.destroy();
  querySet.destroy();
  return stamps;
}
