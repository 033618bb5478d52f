// A lowered program bound to buffers: run is one encoder, one pass, one submission; and one more after each meeting with other ranks.
import type { Executable } from "../models/graph/backend.ts";
import type { MemoryPlan } from "../models/graph/plan.ts";
import type { Program } from "../models/graph/program.ts";
import { ALONE, type Communicator } from "../models/graph/communicator.ts";
import { carryOut, type Meeting, meetings } from "../models/graph/ops/collective.ts";
import { byteLength, type Tensor } from "../models/graph/tensor.ts";
import { type Dispatch, fold, paramBytes, type ReadyDispatch, writeParams } from "./dispatch.ts";
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

const MAP_READ_COPY_DST = 0x01 | 0x08; // GPUBufferUsage.MAP_READ | COPY_DST

/** A meeting with the other ranks, and the buffers in which the host finds what it carries there. */
interface Stop extends Meeting {
  readonly readable: readonly GPUBuffer[];
}

/** Bytes of the largest `Params` struct, that of the lane product. */
export const LARGEST_PARAMS = 128;

/** A program made ready for a device. */
export class GpuExecutable implements Executable {
  readonly profile?: () => Promise<Float64Array>;
  readonly #uniforms: GPUBuffer;
  readonly #stride: number;
  readonly #stops: readonly Stop[];
  #ready: ReadyDispatch[] = [];
  #generation = -1;

  constructor(
    readonly program: Program,
    readonly plan: MemoryPlan,
    readonly dispatches: readonly Dispatch[],
    readonly pipelines: readonly Pipeline[],
    readonly host: Host,
    readonly communicator: Communicator = ALONE,
  ) {
    this.#stops = meetings(program).map((meeting) => ({
      ...meeting,
      readable: meeting.ops.map(({ in: { x } }) =>
        host.device.createBuffer({ label: `told ${x.name}`, size: byteLength(x), usage: MAP_READ_COPY_DST })
      ),
    }));
    this.#stride = host.device.limits.minUniformBufferOffsetAlignment;
    this.#uniforms = host.buffers.uniforms(this.#packParams());
    if (host.timestamps && this.#stops.length === 0) {
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
    if (this.#stops.length > 0) return this.#runWithOthers();
    this.#submit(this.#bound());
    return this.host.pace();
  }

  async #runWithOthers(): Promise<void> {
    const ready = this.#bound();
    let done = 0;
    for (const stop of this.#stops) {
      const found = ready.findIndex(({ op }, i) => i >= done && op > stop.at), next = found < 0 ? ready.length : found;
      await this.#meet(stop, ready.slice(done, next));
      done = next;
    }
    this.#submit(ready.slice(done));
    await this.host.pace();
  }

  /** Computes up to a meeting, and writes down what the ranks have told each other. */
  async #meet({ ops, readable }: Stop, before: readonly ReadyDispatch[]): Promise<void> {
    const { queue } = this.host.device;
    this.#submit(before, (encoder) =>
      ops.forEach(({ in: { x } }, i) => {
        const { buffer, offset } = this.#placeOf(x);
        encoder.copyBufferToBuffer(buffer, offset, readable[i], 0, byteLength(x));
      }));
    const told = await Promise.all(readable.map(async (buffer) => {
      await buffer.mapAsync(1 /* GPUMapMode.READ */).catch((error) => {
        this.host.check(); // a lost device says more than the buffer
        throw error;
      });
      const data = new Float32Array(buffer.getMappedRange().slice(0));
      buffer.unmap();
      return data;
    }));
    this.host.check();
    for (const [i, op] of ops.entries()) {
      const result = await carryOut(op, told[i], this.communicator) as Float32Array<ArrayBuffer>;
      const { buffer, offset } = this.#placeOf(op.out.y);
      queue.writeBuffer(buffer, offset, result);
    }
  }

  #placeOf(t: Tensor) {
    const binding = { kind: "tensor", tensor: t, offset: 4 * (t.offset ?? 0), bytes: byteLength(t) } as const;
    return this.host.buffers.place(binding, 0, this.plan.offsets);
  }

  #submit(ready: readonly ReadyDispatch[], then: (encoder: GPUCommandEncoder) => void = () => {}): void {
    const { device } = this.host;
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
    then(encoder);
    device.queue.submit([encoder.finish()]);
  }

  dispose(): void {
    for (const { readable } of this.#stops) for (const buffer of readable) buffer.destroy();
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
