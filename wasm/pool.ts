// Persistent worker threads over one shared memory, woken by a counter and heard of by another.
import workerSource from "./worker.js" with { type: "text" };
import { Control } from "./codes.ts";
import { CONTROL_ADDRESS } from "./memory.ts";
import type { TileShape } from "./micro_kernels.ts";

/** What a run needs to know beside the list itself. */
export interface RunContext {
  readonly scratch: number;
  readonly scratchBytes: number;
  /** Where to write a time stamp after each step; 0: nowhere. */
  readonly times: number;
}

/** Threads that interpret op lists. The caller's thread only waits, asynchronously. */
export class WorkerPool {
  readonly #workers: Worker[];
  readonly #control: Int32Array;
  #failed: Error | undefined;
  /** Rejects what is being waited for. */
  #reject: (error: Error) => void = () => {};

  private constructor(memory: WebAssembly.Memory, workers: Worker[]) {
    this.#workers = workers;
    this.#control = new Int32Array(memory.buffer, CONTROL_ADDRESS, Control.bytes / 4);
  }

  /** Starts `threads` workers and waits until each has its kernels. */
  static async start(
    module: WebAssembly.Module,
    memory: WebAssembly.Memory,
    threads: number,
    tile: TileShape,
  ): Promise<WorkerPool> {
    // A data: URL, because Blob workers fail in binaries made by older versions of Deno, and file URLs in all.
    const url = `data:text/javascript,${encodeURIComponent(workerSource)}`;
    const workers = Array.from(
      { length: threads },
      (_, i) => new Worker(url, { type: "module", name: `kernels ${i}` }),
    );
    const pool = new WorkerPool(memory, workers);
    pool.#set(Control.threads, threads);
    pool.#set(Control.tileRows, tile.rows);
    pool.#set(Control.tileColumns, tile.columns);
    await new Promise<void>((resolve, reject) => {
      pool.#reject = reject;
      let ready = 0;
      workers.forEach((worker, thread) => {
        worker.onmessage = ({ data }) => {
          if (data.error) pool.#fail(data.error);
          else if (++ready === threads) resolve();
        };
        worker.onerror = (event) => {
          event.preventDefault();
          pool.#fail(event.message);
        };
        worker.postMessage({ module, memory, thread, control: CONTROL_ADDRESS });
      });
    });
    return pool;
  }

  /** Runs a list of steps; resolves when every thread has finished it. Rejects if a kernel trapped. */
  async run(list: number, steps: number, context: RunContext): Promise<void> {
    this.#set(Control.action, 0);
    this.#set(Control.list, list);
    this.#set(Control.steps, steps);
    this.#set(Control.scratch, context.scratch);
    this.#set(Control.scratchBytes, context.scratchBytes);
    this.#set(Control.times, context.times);
    await this.#command();
  }

  /** Ends the threads. */
  async close(): Promise<void> {
    this.#set(Control.action, 1);
    if (!this.#failed) await this.#command().catch(() => {});
    for (const worker of this.#workers) worker.terminate();
  }

  async #command(): Promise<void> {
    if (this.#failed) throw this.#failed;
    const control = this.#control, command = Control.command / 4, done = Control.done / 4;
    const number = Atomics.add(control, command, 1) + 1 | 0;
    Atomics.notify(control, command);
    for (let seen = Atomics.load(control, done); seen !== number; seen = Atomics.load(control, done)) {
      const wait = Atomics.waitAsync(control, done, seen);
      if (!wait.async) continue;
      await new Promise<void>((resolve, reject) => {
        this.#reject = reject;
        wait.value.then(() => resolve());
      });
    }
  }

  /** A trap in one thread leaves the others waiting for it: nothing can be run any more. */
  #fail(message: string): void {
    this.#failed ??= new Error(`wasm thread: ${message}`);
    this.#reject(this.#failed);
  }

  #set(field: Control, value: number): void {
    this.#control[field / 4] = value;
  }
}
