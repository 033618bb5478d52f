// The most arithmetic and the fastest copy of a device, measured: what kernels are compared with.

import { openDevice } from "../../gpu/device.ts";
import type { Backend } from "../../models/graph/backend.ts";
import { emitCopy } from "../../models/graph/ops/elementwise.ts";
import { Program } from "../../models/graph/program.ts";
import { tensor } from "../../models/graph/tensor.ts";
import { time } from "./case.ts";
import copyKernel from "./copy.wgsl" with { type: "text" };
import fmaKernel from "./fma.wgsl" with { type: "text" };

/** What a device can do at most. */
export interface Roofline {
  /** Billions of float32 operations a second, on registers and nothing else. */
  readonly gflops: number;
  /** Billions of bytes a second that a copy reads and writes. */
  readonly gbytes: number;
}

/** Invocations, rounds and operations a round of `fma.wgsl`. */
const INVOCATIONS = 64 * 4096, ROUNDS = 256, FLOPS = 8 * 4 * 2;
/** Workgroups of a copy: several for every core of a large graphics card. */
const COPY_GROUPS = 4096;
/** A measurement is long enough when waiting for its answer, ten milliseconds, does not count. */
const LONG_ENOUGH = 0.3, MOST_DISPATCHES = 2 ** 16;

/** Measures a device. A wasm backend timed its own register tile when it was opened. */
export async function measureRoofline(
  backend: Backend,
  adapter: string | undefined,
  copyBytes: number,
): Promise<Roofline> {
  const { peakGflops } = backend as Backend & { peakGflops?: number };
  if (peakGflops !== undefined) return { gflops: peakGflops, gbytes: await copyOnHost(backend, copyBytes) };
  return await measureGpu(adapter, copyBytes);
}

async function copyOnHost(backend: Backend, bytes: number): Promise<number> {
  const x = tensor("x", [bytes / 4], "input"), y = tensor("y", [bytes / 4], "output");
  const program = new Program("copy");
  emitCopy(program, x, y);
  const executable = await backend.compile(program);
  const { median } = await time({ run: () => executable.run() }, 0.5);
  executable.dispose();
  backend.free(x, y);
  return 2 * bytes / median / 1e6;
}

async function measureGpu(adapter: string | undefined, copyBytes: number): Promise<Roofline> {
  const { device } = await openDevice({ adapter, allowFallback: true });
  try {
    const bytes = Math.min(copyBytes, device.limits.maxStorageBufferBindingSize & ~255);
    const groups = INVOCATIONS / 64;
    const flops = await perSecond(device, fmaKernel, [4 * INVOCATIONS], groups, INVOCATIONS * ROUNDS * FLOPS, 15);
    const copied = await perSecond(device, copyKernel, [bytes, bytes], COPY_GROUPS, 2 * bytes);
    return { gflops: flops / 1e9, gbytes: copied / 1e9 };
  } finally {
    device.destroy();
  }
}

/**
 * The best rate of a kernel on buffers of these sizes, in units of `work` done by one dispatch of `groups`.
 *
 * @param wider so many times the groups a dispatch may have, for the same work each: a device is idle between dispatches
 */
async function perSecond(
  device: GPUDevice,
  code: string,
  sizes: readonly number[],
  groups: number,
  work: number,
  wider = 1,
): Promise<number> {
  const module = device.createShaderModule({ code });
  const pipeline = device.createComputePipeline({ layout: "auto", compute: { module, entryPoint: "main" } });
  const buffers = sizes.map((size) => device.createBuffer({ size, usage: 0x80 /* GPUBufferUsage.STORAGE */ }));
  const group = device.createBindGroup({
    layout: pipeline.getBindGroupLayout(0),
    entries: buffers.map((buffer, binding) => ({ binding, resource: { buffer } })),
  });
  let best = 0;
  for (let times = 1; times <= MOST_DISPATCHES; times *= 4) {
    const width = Math.min(times, wider), dispatches = Math.max(1, Math.floor(times / width));
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    for (let i = 0; i < dispatches; i++) pass.dispatchWorkgroups(groups * width);
    pass.end();
    const start = performance.now();
    device.queue.submit([encoder.finish()]);
    await device.queue.onSubmittedWorkDone();
    const seconds = (performance.now() - start) / 1000;
    best = Math.max(best, dispatches * width * work / seconds);
    if (seconds > LONG_ENOUGH) break;
  }
  for (const buffer of buffers) buffer.destroy();
  return best;
}
