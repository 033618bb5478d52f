// What a program asks of a device: compile, write, run, read.
import type { Communicator } from "./communicator.ts";
import type { Program } from "./program.ts";
import type { MemoryPlan } from "./plan.ts";
import type { Tensor, TensorData } from "./tensor.ts";

/** Element type of stored activations and of the weights that products read. */
export type Precision = "f32" | "f16";

/** A device has no room for what was asked of it; the message names the bytes and what takes less. */
export class OutOfMemoryError extends RangeError {
  /** Told by it where classes do not travel, as between processes. */
  override readonly name = "OutOfMemoryError";
}

/** Bytes a backend holds, by purpose. */
export interface MemoryUse {
  /** Parameters, state, inputs, outputs and constants. */
  readonly persistent: number;
  /** Activations of the largest compiled program; programs share it because one runs at a time. */
  readonly arena: number;
  /** Kernels' own scratch space. */
  readonly workspace: number;
}

/**
 * A device that runs programs.
 *
 * Persistent tensors (every role but `activation`) come to life zeroed on the first `compile` or
 * `write` that names them, and are shared by all programs of the backend.
 * Calls take effect in the order they are made: `write`, `run` and `read` need not be awaited for that.
 */
export interface Backend {
  /** Which kind of backend it is. */
  readonly name: "wasm" | "webgpu" | "reference";
  /** Device, driver, threads and mode, for people: `"SIMD, 2 threads, turbo"`. */
  readonly description: string;
  /** What it keeps activations and copies of weights as between operations; absent: f32. Sums and masters are f32 in any case. */
  readonly precision?: Precision;
  /** What a resumed run must find unchanged to repeat its sums bit for bit. */
  readonly fingerprint: string;
  /** Bytes held at this moment. */
  readonly memory: MemoryUse;

  /**
   * Plans memory, builds kernels, allocates. Throws {OutOfMemoryError} when the device cannot hold it.
   *
   * @param communicator of the ranks that a program of several was written for; its runs meet theirs, and must be awaited before
   * anything else is asked for
   */
  compile(program: Program, communicator?: Communicator): Promise<Executable>;

  /** Whether there is room for programs besides what is held, found out by trying; as if opened with `precision`. */
  holds?(programs: readonly Program[], precision?: Precision): Promise<boolean>;

  /** Copies host data into a persistent tensor, or into `data.length` elements of it from element `offset`. */
  write(t: Tensor, data: TensorData, offset?: number): void;

  /** Contents of a persistent tensor after every run asked for so far. */
  read(t: Tensor): Promise<TensorData>;

  /** Resolves when all work asked for so far is done; rejects if the device was lost. */
  finish(): Promise<void>;

  /** Frees the buffers of these persistent tensors (views free nothing). */
  free(...tensors: Tensor[]): void;

  /** Stops threads, releases the device. The backend is unusable afterwards. */
  close(): Promise<void>;
}

/** A program made ready for one device. */
export interface Executable {
  /** What it was compiled from. */
  readonly program: Program;
  /** Where its activations lie. */
  readonly plan: MemoryPlan;
  /** Runs all operations once, without allocating. Resolves when the caller may write inputs for the next run. */
  run(): Promise<void>;
  /** Microseconds an operation took, in program order, over one run (slower than `run`: it waits after each). */
  profile?(): Promise<Float64Array>;
  /** Gives back what `compile` took, but for persistent tensors. */
  dispose(): void;
}
