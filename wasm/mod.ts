// The CPU backend: AssemblyScript SIMD kernels, interpreted from an op list by worker threads over one shared memory.
//
// It is float32 throughout, deterministic for any number of threads, and allocates nothing between runs. It is not a
// general tensor library: shapes are fixed when a program is compiled, and one program runs at a time.
import kernels from "./kernels.b64" with { type: "text" };
import { dropUnreadOutputs } from "../models/graph/autodiff.ts";
import type { Backend, Executable, MemoryUse } from "../models/graph/backend.ts";
import { ALONE, type Communicator } from "../models/graph/communicator.ts";
import { carryOut, type CollectiveOp, meetings, requireRanks } from "../models/graph/ops/collective.ts";
import type { Op } from "../models/graph/ops/mod.ts";
import type { MemoryPlan } from "../models/graph/plan.ts";
import type { Program } from "../models/graph/program.ts";
import {
  byteLength,
  bytesPerElement,
  hostArray,
  rootOf,
  size,
  type Tensor,
  type TensorData,
} from "../models/graph/tensor.ts";
import { calibrate, type Calibration } from "./calibrate.ts";
import { Control, StepField } from "./codes.ts";
import { activationAddress, lower, type Step, type StepList, workspaceBytes, writeSteps } from "./compile.ts";
import { allocated, CONTROL_ADDRESS, type Demand, Layout, reserveMemory } from "./memory.ts";
import type { TileShape } from "./micro_kernels.ts";
import { WorkerPool } from "./pool.ts";
import { planWithPanels, type SharedPanels } from "./shared_panels.ts";
import { RedZones } from "./red_zones.ts";

export { workspaceBytes };

/** How to open the backend. */
export interface WasmOptions {
  /** Worker threads; all cores unless given. */
  readonly threads?: number;
  /** Address space to reserve, 4 GiB unless given; memory is taken only as it is used. */
  readonly maximumBytes?: number;
  /** Register tile of the matrix products; timed unless given. Changes the speed, never a result. */
  readonly tile?: TileShape;
  /** How V8 was started, if that is known: "turbo" with the flags that make kernels fast. Timed unless given. */
  readonly mode?: "turbo" | "stock";
  /** For tests: bytes around every buffer that are checked after each run; what runs overwrite starts as NaN. */
  readonly redZone?: number;
}

const WHOLE_MEMORY = 2 ** 32;

let compiled: Promise<WebAssembly.Module> | undefined;

/**
 * Opens the CPU backend.
 *
 * @throws {RangeError} if `threads` is not a whole number ≥ 1, or no shared memory can be had
 * @throws {Error} if this processor or V8 lacks relaxed SIMD
 */
export async function openWasm(options: WasmOptions = {}): Promise<Backend> {
  const { threads = navigator.hardwareConcurrency, maximumBytes = WHOLE_MEMORY, redZone = 0 } = options;
  if (!Number.isSafeInteger(threads) || threads < 1 || threads > 256) {
    throw new RangeError(`wasm: threads ${threads} is not a whole number from 1 to 256`);
  }
  compiled ??= WebAssembly.compile(Uint8Array.fromBase64(kernels));
  const module = await compiled.catch((cause) => {
    throw new Error("wasm: this V8 cannot compile relaxed SIMD; Deno 2.7 or later is needed", { cause });
  });
  const memory = reserveMemory(maximumBytes);
  const layout = new Layout(memory.buffer.byteLength, threads, redZone);
  // Calibration borrows memory that no buffer has yet.
  const instance = new WebAssembly.Instance(module, { env: { memory, now: () => performance.now() } });
  (instance.exports.fillConstants as (address: number) => void)(CONTROL_ADDRESS + Control.constants);
  const { address } = layout.allocate(1 << 17, "calibration");
  const calibration = await calibrate(instance.exports, address, options.mode);
  layout.release(address);
  const chosen = options.tile ?? calibration.tile;
  const pool = await WorkerPool.start(module, memory, threads, chosen);
  return new WasmBackend(memory, layout, pool, calibration, chosen);
}

class WasmBackend implements Backend {
  readonly name = "wasm";
  readonly description: string;
  /** Every sum has one order whatever the mode, the tile and the threads; another build may differ. */
  readonly fingerprint = "wasm simd 3";
  /** Billions of operations a second of all threads on operands in registers and L1: what kernels can be compared with. */
  readonly peakGflops: number;
  readonly #memory: WebAssembly.Memory;
  readonly #layout: Layout;
  readonly #pool: WorkerPool;
  readonly #tile: TileShape;
  readonly #addresses = new Map<number, number>();
  readonly #zones?: RedZones;
  /** Work asked for and not yet done, in order. */
  #queue: Promise<void> = Promise.resolve();
  #pending = 0;
  #closed = false;

  constructor(
    memory: WebAssembly.Memory,
    layout: Layout,
    pool: WorkerPool,
    { mode, gflops }: Calibration,
    tile: TileShape,
  ) {
    this.peakGflops = gflops * layout.threads;
    this.#memory = memory;
    this.#layout = layout;
    this.#pool = pool;
    this.#tile = tile;
    if (layout.zone > 0) this.#zones = new RedZones(memory, layout.zone);
    const threads = layout.threads === 1 ? "1 thread" : `${layout.threads} threads`;
    this.description = `SIMD, ${threads}, ${mode} (${tile.rows}×${tile.columns} tiles, ${
      gflops.toFixed(0)
    } GFLOP/s each)`;
  }

  get memory(): MemoryUse {
    const { persistent, arena, workspace } = this.#layout;
    return { persistent, arena, workspace };
  }

  compile(program: Program, communicator: Communicator = ALONE): Promise<Executable> {
    // Started at once, so that what is written next finds its buffer.
    return new Promise((resolve) => resolve(this.#compile(program, communicator)));
  }

  #compile(program: Program, communicator: Communicator): Executable {
    requireRanks(program, communicator);
    const { plan, panels, steps } = this.#prepare(program);
    const { demand, persistent } = this.#needs([{ program, plan, steps }]);
    // All or nothing: a program that does not fit leaves the backend as it was.
    this.#layout.require(demand, persistent, `program "${program.name}"`);
    for (const root of program.roots()) if (root.role !== "activation") this.#addressOf(root);
    const { address: list } = this.#layout.allocate(steps.steps.length * StepField.bytes, "an op list");
    return new WasmExecutable(this, program, plan, panels, list, demand, steps.steps, communicator);
  }

  holds(programs: readonly Program[]): Promise<boolean> {
    const { demand, persistent } = this.#needs(programs.map((program) => ({ program, ...this.#prepare(program) })));
    return Promise.resolve(this.#layout.fits(demand, persistent));
  }

  #prepare(program: Program): { plan: MemoryPlan; panels: ReadonlyMap<Op, SharedPanels>; steps: StepList } {
    dropUnreadOutputs(program);
    const { plan, panels } = planWithPanels(program);
    const machine = { threads: this.#layout.threads, tileColumns: this.#tile.columns };
    return { plan, panels, steps: lower(program, machine, panels) };
  }

  /** What programs take while they run, and bytes of buffers that they name and that are not there yet. */
  #needs(
    programs: readonly { program: Program; plan: MemoryPlan; steps: StepList }[],
  ): { demand: Demand; persistent: number } {
    const roots = new Map<number, Tensor>(), most = { arena: 0, workspace: 0, scratch: 0 };
    const bytes = (n: number) => allocated(n + 2 * this.#layout.zone);
    let persistent = 0;
    for (const { program, plan, steps } of programs) {
      most.arena = Math.max(most.arena, plan.arenaBytes);
      most.workspace = Math.max(most.workspace, steps.workspaceBytes);
      most.scratch = Math.max(most.scratch, steps.scratchBytes);
      persistent += bytes(steps.steps.length * StepField.bytes);
      for (const root of program.roots()) {
        if (root.role !== "activation" && !this.#addresses.has(root.id)) roots.set(root.id, root);
      }
    }
    for (const root of roots.values()) persistent += bytes(byteLength(root));
    return { demand: most, persistent };
  }

  /** Writes the list for the present layout. */
  writeList({ program, plan, panels, list }: WasmExecutable): void {
    const machine = { threads: this.#layout.threads, tileColumns: this.#tile.columns };
    const { steps } = lower(program, machine, panels, {
      root: (root) => root.role === "activation" ? activationAddress(this.#layout, plan, root) : this.#addressOf(root),
      inArena: (offset, bytes) => this.#layout.activationAddress(offset, bytes),
      workspace: this.#layout.workspaceAddress,
    });
    const words = new Uint32Array(this.#memory.buffer, list, steps.length * StepField.bytes / 4);
    writeSteps(words, steps, machine.threads);
  }

  get layoutVersion(): number {
    return this.#layout.version;
  }

  /**
   * Runs a list after everything asked for before it. `prepare` is called right before.
   *
   * @param stops where the threads rest while the host does something
   */
  runList(list: number, steps: number, prepare: () => void, stops: readonly Stop[] = [], times = 0): Promise<void> {
    return this.#enqueue(async () => {
      prepare();
      const { scratchAddress, scratchBytes, transientAddress, bytes } = this.#layout;
      this.#zones?.poison(transientAddress, bytes);
      const context = { scratch: scratchAddress, scratchBytes, times };
      let done = 0;
      const runUpTo = async (end: number) => {
        if (end > done) await this.#pool.run(list + done * StepField.bytes, end - done, context);
        done = end;
      };
      for (const stop of stops) {
        await runUpTo(stop.steps);
        await stop.action();
      }
      await runUpTo(steps);
      this.#zones?.check(this.#layout.scratchEnd);
    });
  }

  /** The elements of any tensor while a program of this plan runs. */
  valuesOf(t: Tensor, plan: MemoryPlan): Float32Array {
    const root = rootOf(t);
    if (root.role !== "activation") return new Float32Array(this.#memory.buffer, this.#bytesOf(t).byteOffset, size(t));
    const address = activationAddress(this.#layout, plan, root) + 4 * (t.offset ?? 0);
    return new Float32Array(this.#memory.buffer, address, size(t));
  }

  /** Runs a list and returns the milliseconds at which each step ended, and the list began (last). */
  async timeList(list: number, steps: number, prepare: () => void): Promise<Float64Array> {
    const { address: times } = this.#layout.allocate((steps + 1) * 8, "a profile");
    try {
      await this.runList(list, steps, prepare, [], times);
      return new Float64Array(this.#memory.buffer, times, steps + 1).slice();
    } finally {
      this.#layout.release(times);
    }
  }

  release({ list, demand }: WasmExecutable): void {
    this.#whenIdle(() => {
      this.#layout.release(list);
      this.#layout.leave(demand);
    });
  }

  write(t: Tensor, data: TensorData, offset = 0): void {
    const target = this.#bytesOf(t);
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    const start = offset * bytesPerElement(t.dtype);
    if (start + bytes.length > target.length) {
      throw new RangeError(`wasm: ${data.length} elements at ${offset} do not fit ${t.name} [${t.shape}]`);
    }
    if (this.#pending === 0) target.set(bytes, start);
    else {
      const copy = bytes.slice();
      this.#whenIdle(() => target.set(copy, start));
    }
  }

  async read(t: Tensor): Promise<TensorData> {
    const source = this.#bytesOf(t);
    const result = hostArray(t);
    await this.#enqueue(() => {
      new Uint8Array(result.buffer).set(source);
      return Promise.resolve();
    });
    return result;
  }

  finish(): Promise<void> {
    return this.#enqueue(() => Promise.resolve());
  }

  free(...tensors: Tensor[]): void {
    for (const t of tensors) {
      const address = t.base ? undefined : this.#addresses.get(t.id);
      if (address === undefined) continue;
      this.#addresses.delete(t.id);
      this.#zones?.forget(address);
      this.#whenIdle(() => this.#layout.release(address));
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#queue.catch(() => {});
    await this.#pool.close();
  }

  /** Address of a persistent root, which comes to life zeroed, or as its constant. */
  #addressOf(root: Tensor): number {
    let address = this.#addresses.get(root.id);
    if (address === undefined) {
      if (root.role === "activation") {
        throw new TypeError(`wasm: ${root.name} is an activation: it has no contents outside a run`);
      }
      const bytes = byteLength(root);
      const made = this.#layout.allocate(bytes, `${root.name} [${root.shape}]`);
      address = made.address;
      this.#addresses.set(root.id, address);
      const contents = new Uint8Array(this.#memory.buffer, address, bytes);
      const { data } = root;
      if (data) contents.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
      else contents.fill(0, 0, made.dirty); // untouched pages are zero, and cost nothing until they are touched
      this.#zones?.surround(address, bytes, root.name);
    }
    return address;
  }

  #bytesOf(t: Tensor): Uint8Array {
    const address = this.#addressOf(rootOf(t)) + (t.offset ?? 0) * bytesPerElement(t.dtype);
    return new Uint8Array(this.#memory.buffer, address, byteLength(t));
  }

  #whenIdle(action: () => void): void {
    if (this.#pending === 0) action();
    else {
      // Whatever went wrong before is reported to whoever asked for it.
      this.#enqueue(() => {
        action();
        return Promise.resolve();
      }).catch(() => {});
    }
  }

  #enqueue(action: () => Promise<void>): Promise<void> {
    if (this.#closed) return Promise.reject(new Error("wasm: the backend is closed"));
    this.#pending++;
    const done = this.#queue.then(action).finally(() => this.#pending--);
    this.#queue = done.catch(() => {});
    return done;
  }
}

/** Where a run rests. */
interface Stop {
  /** Steps that are done by then. */
  readonly steps: number;
  readonly action: () => Promise<void>;
}

class WasmExecutable implements Executable {
  #version = -1;
  #disposed = false;
  readonly #stops: readonly Stop[];

  constructor(
    readonly backend: WasmBackend,
    readonly program: Program,
    readonly plan: MemoryPlan,
    readonly panels: ReadonlyMap<Op, SharedPanels>,
    readonly list: number,
    readonly demand: Demand,
    readonly steps: readonly Step[],
    communicator: Communicator,
  ) {
    this.#stops = meetings(program).map(({ at, ops }) => {
      const next = steps.findIndex(({ op }) => op > at);
      return { steps: next < 0 ? steps.length : next, action: () => this.#meet(ops, communicator) };
    });
  }

  run(): Promise<void> {
    if (this.#disposed) return Promise.reject(new Error(`wasm: program "${this.program.name}" was disposed`));
    return this.backend.runList(this.list, this.steps.length, () => this.#refresh(), this.#stops);
  }

  async #meet(ops: readonly CollectiveOp[], communicator: Communicator): Promise<void> {
    for (const op of ops) {
      const told = Float32Array.from(this.backend.valuesOf(op.in.x, this.plan)); // out of the shared memory
      this.backend.valuesOf(op.out.y, this.plan).set(await carryOut(op, told, communicator));
    }
  }

  async profile(): Promise<Float64Array> {
    if (this.#stops.length > 0) {
      throw new TypeError(`wasm: program "${this.program.name}" of several ranks has no profile`);
    }
    const times = await this.backend.timeList(this.list, this.steps.length, () => this.#refresh());
    const spent = new Float64Array(this.program.ops.length);
    let last = times[this.steps.length];
    this.steps.forEach(({ op }, i) => {
      spent[op] += (times[i] - last) * 1000;
      last = times[i];
    });
    return spent;
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.backend.release(this);
  }

  /** Another program may have moved the arena since the list was written. */
  #refresh(): void {
    if (this.#version === this.backend.layoutVersion) return;
    this.#version = this.backend.layoutVersion;
    this.backend.writeList(this);
  }
}
