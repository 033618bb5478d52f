// A lowered program bound to buffers: run is one encoder, one pass, one submission.
import type { Executable } from "../models/graph/backend.ts";
import type { MemoryPlan } from "../models/graph/plan.ts";
import type { Program } from "../models/graph/program.ts";
import { type Dispatch, fold, paramBytes, writeParams } from "./dispatch.ts";
import type { Memory } from "./memory.ts";
import type { Pipeline } from "./shader.ts";
import { profileOperations } from "./profile.ts";

/** What an executable needs of its backend. */
export interface Host {
  readonly device: GPUDevice;
  readonly buffers: Memory;
  readonly timestamps: boolean;
  /** Throws the error the device reported, if any. */
  check(): void;
  /** Called after each submission; resolves when another may follow. */
  pace(): Promise<void>;
}

/** A dispatch made ready. */
export interface ReadyDispatch {
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  readonly x: number;
  readonly y: number;
  readonly op: number;
}

/** Bytes of the largest `Params` struct, that of the lane product. */
const LARGEST_PARAMS = 128;

/** A program made ready for a device. */
export class GpuExecutable implements Executable {
  readonly profile?: () => Promise<Float64Array>;
  readonly #uniforms: GPUBuffer;
  readonly #stride: number;
  #ready: ReadyDispatch[] = [];
  #generation = -1;

  constructor(
    readonly program: Program,
    readonly plan: MemoryPlan,
    readonly dispatches: readonly Dispatch[],
    readonly pipelines: readonly Pipeline[],
    readonly host: Host,
  ) {
    this.#stride = host.device.limits.minUniformBufferOffsetAlignment;
    this.#uniforms = host.buffers.uniforms(this.#packParams());
    if (host.timestamps) {
      this.profile = async () => {
        this.host.check();
        const result = await profileOperations(host.device, this.#bound(), program.ops.length);
        this.host.check();
        return result;
      };
    }
  }

  run(): Promise<void> {
    this.host.check();
    const { device } = this.host;
    const ready = this.#bound();
    const encoder = device.createCommandEncoder({ label: this.program.name });
    const pass = encoder.beginComputePass({ label: this.program.name });
    let last: GPUComputePipeline | undefined;
    for (const { pipeline, group, x, y } of ready) {
      if (pipeline !== last) pass.setPipeline(pipeline);
      last = pipeline;
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(x, y);
    }
    pass.end();
    device.queue.submit([encoder.finish()]);
    return this.host.pace();
  }

  dispose(): void {
    this.#uniforms.destroy();
    this.#ready = [];
  }

  /** Bind groups are made once, and again only when a larger program moved the arena. */
  #bound(): readonly ReadyDispatch[] {
    const { device, buffers } = this.host;
    if (this.#generation === buffers.generation) return this.#ready;
    this.#ready = this.dispatches.map((dispatch, i) => {
      const { pipeline, layout } = this.pipelines[i];
      const uniform = { buffer: this.#uniforms, offset: this.#offset(i), size: paramBytes(dispatch.params) };
      const resources = [
        uniform,
        ...dispatch.bindings.map((binding, slot) => buffers.place(binding, slot, this.plan.offsets)),
      ];
      const [x, y] = fold(dispatch.groups);
      const group = device.createBindGroup({
        label: dispatch.kernel.name,
        layout,
        entries: resources.map((resource, binding) => ({ binding, resource })),
      });
      return { pipeline, group, x, y, op: dispatch.op };
    });
    this.#generation = buffers.generation;
    return this.#ready;
  }

  #offset(i: number): number {
    return i * Math.ceil(LARGEST_PARAMS / this.#stride) * this.#stride;
  }

  #packParams(): Uint8Array {
    const data = new DataView(new ArrayBuffer(this.#offset(this.dispatches.length) + LARGEST_PARAMS));
    this.dispatches.forEach(({ params }, i) => writeParams(data, this.#offset(i), params));
    return new Uint8Array(data.buffer);
  }
}
