// Bytes between ranks by MPI: point to point, without ever blocking the thread that hears signals.

import { setImmediate } from "node:timers";
import type { Transport } from "../../dino/ranks/collectives.ts";
import type { Mpi, Requests } from "./library.ts";

/** Bytes of a message at most: MPI counts in 32 bits. */
const MESSAGE_BYTES = 2 ** 30;

/** Tags of messages. */
const DATA = 1, FAREWELL = 2;

/** Bytes of a reason that goes to the other ranks. */
const REASON_BYTES = 4096;

/**
 * How long a rank looks without a break, and then with a turn of the event loop (some 13 µs) between looks; after that it sleeps,
 * for this long, which Deno makes three; in milliseconds. Its own threads have nothing to do meanwhile.
 */
const SPIN_MS = 0.1, YIELD_MS = 50, SLEEP_MS = 2;

/** How long it waits for ranks that may be gone, after it was asked to stop. */
const GRACE_MS = 120_000;

/** How long it takes care that a reason gets through. */
const FAREWELL_MS = 1000;

/** Carries bytes over an MPI that is started. */
export class MpiTransport implements Transport {
  readonly rank: number;
  readonly size: number;
  readonly description: string;
  readonly #requests: Requests;
  /** What a rank that fails says before it goes. */
  readonly #farewell = new Uint8Array(new ArrayBuffer(REASON_BYTES));
  readonly #hearing: Requests;
  /** What MPI reads and writes while this side waits: the collector must not take it for forgotten. */
  #held: unknown;
  #failure: Error | undefined;

  /** @param signal asks this rank to stop, which ends its patience with the others */
  constructor(readonly mpi: Mpi, readonly signal?: AbortSignal) {
    this.rank = mpi.rank();
    this.size = mpi.size();
    this.description = mpi.version;
    this.#requests = mpi.requests(2 * this.size);
    this.#hearing = mpi.requests(1);
    mpi.receive(this.#farewell, undefined, FAREWELL, this.#hearing, 0);
  }

  async exchange(out: readonly (Uint8Array | undefined)[], into: readonly (Uint8Array | undefined)[]): Promise<void> {
    if (this.#failure) throw this.#failure;
    this.#held = [out, into];
    const longest = Math.max(0, ...[...out, ...into].map((data) => data?.length ?? 0));
    for (let start = 0; start < longest; start += MESSAGE_BYTES) {
      const part = (data: Uint8Array | undefined) => data?.subarray(start, start + MESSAGE_BYTES);
      let count = 0;
      for (let from = 0; from < this.size; from++) {
        const data = part(into[from]);
        if (data?.length) this.mpi.receive(data, from, DATA, this.#requests, count++);
      }
      for (let to = 0; to < this.size; to++) {
        const data = part(out[to]);
        if (data?.length) this.mpi.send(data, to, DATA, this.#requests, count++);
      }
      await this.#done(count);
    }
  }

  /** Looks until the requests are done: at first without a break, since most are in a moment; then more and more rarely. */
  async #done(count: number): Promise<void> {
    const start = performance.now();
    let patience = Infinity;
    while (!this.mpi.test(this.#requests, count)) {
      const waited = performance.now() - start;
      if (waited < SPIN_MS) continue;
      const reason = this.mpi.test(this.#hearing, 1) ? this.#heard() : "";
      if (reason !== "") this.#fail(reason); // without one, a rank has closed a moment before this one
      if (this.signal?.aborted) patience = Math.min(patience, waited + GRACE_MS);
      if (waited > patience) {
        this.#fail(`the other ranks did not answer in the ${GRACE_MS / 1000} s after this one was asked to stop`);
      }
      await (waited < YIELD_MS ? turn() : sleep());
    }
  }

  #heard(): string {
    return new TextDecoder().decode(this.#farewell.subarray(0, this.#farewell.indexOf(0)));
  }

  #fail(reason: string): never {
    throw this.#failure ??= new Error(reason);
  }

  async abort(reason: string): Promise<void> {
    if (this.#failure) return; // the others know
    this.#failure = new Error(reason);
    const text = new TextEncoder().encode(`rank ${this.rank} failed: ${reason}`).subarray(0, REASON_BYTES - 1);
    const message = new Uint8Array(new ArrayBuffer(text.length + 1));
    message.set(text);
    const requests = this.mpi.requests(this.size);
    this.#held = [message, this.#held];
    let count = 0;
    for (let to = 0; to < this.size; to++) {
      if (to !== this.rank) this.mpi.send(message, to, FAREWELL, requests, count++);
    }
    const start = performance.now();
    while (performance.now() - start < FAREWELL_MS) {
      this.mpi.test(requests, count);
      await sleep();
    }
  }

  async close(): Promise<void> {
    if (this.#failure) return; // the others are gone, or about to go: who ends MPI would wait for them
    const nobody = Array.from({ length: this.size }, () => undefined);
    const all = nobody.map((_, rank) => rank === this.rank ? undefined : new Uint8Array(1));
    await this.exchange(all, all.map((data) => data?.slice()));
    const requests = this.mpi.requests(1), farewell = this.#held = new Uint8Array(1);
    this.mpi.send(farewell, (this.rank + 1) % this.size, FAREWELL, requests, 0); // so that nobody listens any more
    while (!this.mpi.test(requests, 1) || !this.mpi.test(this.#hearing, 1)) await turn();
    await this.mpi.finalize();
  }
}

/** Lets timers and signals in. */
function turn(): Promise<void> {
  return new Promise((resolve) => void setImmediate(resolve));
}

function sleep(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, SLEEP_MS));
}
