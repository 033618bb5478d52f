// The most arithmetic a device does, measured: what kernels are compared with.

import type { Backend } from "../../models/graph/backend.ts";
import { openDevice } from "../../gpu/device.ts";
import fmaKernel from "./fma.wgsl" with { type: "text" };

/** Invocations, rounds and operations a round of `fma.wgsl`. */
const INVOCATIONS = 64 * 4096, ROUNDS = 256, FLOPS = 8 * 4 * 2;

/** Billions of float32 operations a second: of registers and nothing else. */
export async function measureRoofline(backend: Backend, adapter: string | undefined): Promise<number> {
  // SIMD: the register tile on operands in L1 was timed when the backend was opened; every thread has its own.
  const { peakGflops } = backend as Backend & { peakGflops?: number };
  return peakGflops ?? await measureGpu(adapter);
}

async function measureGpu(adapter: string | undefined): Promise<number> {
  const { device } = await openDevice({ adapter, allowFallback: true });
  try {
    const module = device.createShaderModule({ code: fmaKernel });
    const pipeline = device.createComputePipeline({ layout: "auto", compute: { module, entryPoint: "main" } });
    const buffer = device.createBuffer({ size: 4 * INVOCATIONS, usage: GPUBufferUsage.STORAGE });
    const group = device.createBindGroup({
      layout: pipeline.getBindGroupLayout(0),
      entries: [{ binding: 0, resource: { buffer } }],
    });
    let best = 0;
    for (let dispatches = 1; dispatches <= 4096; dispatches *= 4) {
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      for (let i = 0; i < dispatches; i++) pass.dispatchWorkgroups(INVOCATIONS / 64);
      pass.end();
      const start = performance.now();
      device.queue.submit([encoder.finish()]);
      await device.queue.onSubmittedWorkDone();
      const seconds = (performance.now() - start) / 1000;
      best = Math.max(best, dispatches * INVOCATIONS * ROUNDS * FLOPS / seconds / 1e9);
      if (seconds > 0.3) break; // long enough that waiting for the answer does not count
    }
    buffer.destroy();
    return best;
  } finally {
    device.destroy();
  }
}
