// Ranks inside one process: several backends, such as two GPUs, that train one network together.

import type { Communicator } from "../../models/graph/communicator.ts";
import { communicate, type Transport } from "./collectives.ts";

/**
 * Communicators of `count` ranks in this process, to be handed to as many trainings that run at the same time.
 *
 * @example Two backends share each batch of a run; both end with the same weights
 * ```ts
 * import { defaultConfig, loadSample, openWasm, presets, ranksInProcess, train } from "../../mod.ts";
 *
 * const config = { ...defaultConfig(), ...presets.sample.values, depth: 1, steps: 2, knnEvery: 0 };
 * const data = await loadSample("train", 64);
 * await Promise.all(ranksInProcess(2).map(async (communicator) => {
 *   const backend = await openWasm({ threads: 1 });
 *   const { step } = await train(config, { backend, data, communicator });
 *   console.log(communicator.rank, step); // 0 2, and 1 2
 *   await backend.close();
 * }));
 * ```
 *
 * @throws {RangeError} if `count` is not a whole number ≥ 1
 */
export function ranksInProcess(count: number): Communicator[] {
  if (!Number.isSafeInteger(count) || count < 1) throw new RangeError(`${count} ranks: use a whole number from 1 on`);
  const room = new Room(count);
  return Array.from({ length: count }, (_, rank) => communicate(new Seat(room, rank)));
}

/** What one rank has brought to an exchange. */
interface Visit {
  readonly out: readonly (Uint8Array | undefined)[];
  readonly into: readonly (Uint8Array | undefined)[];
  readonly done: PromiseWithResolvers<void>;
}

/** Where ranks meet: whoever comes last carries everything over. */
class Room {
  readonly #visits = new Map<number, Visit>();
  #failure: Error | undefined;

  constructor(readonly size: number) {}

  exchange(rank: number, out: Visit["out"], into: Visit["into"]): Promise<void> {
    if (this.#failure) return Promise.reject(this.#failure);
    if (this.#visits.has(rank)) return Promise.reject(new Error(`rank ${rank} exchanges twice at a time`));
    const done = Promise.withResolvers<void>();
    this.#visits.set(rank, { out, into, done });
    if (this.#visits.size === this.size) this.#carryOver();
    return done.promise;
  }

  #carryOver(): void {
    const visits = new Map(this.#visits);
    this.#visits.clear();
    try {
      for (const [to, { into }] of visits) {
        into.forEach((target, from) => {
          const sent = visits.get(from)!.out[to];
          if (sent?.length !== target?.length) {
            throw new Error(`rank ${from} sends ${sent?.length ?? 0} bytes, rank ${to} expects ${target?.length ?? 0}`);
          }
          if (target) target.set(sent!);
        });
      }
      for (const { done } of visits.values()) done.resolve();
    } catch (error) {
      this.#failure = error as Error;
      for (const { done } of visits.values()) done.reject(error);
    }
  }

  abort(error: Error): void {
    this.#failure ??= error;
    for (const { done } of this.#visits.values()) done.reject(this.#failure);
    this.#visits.clear();
  }
}

class Seat implements Transport {
  readonly description: string;

  constructor(readonly room: Room, readonly rank: number) {
    this.description = `${room.size} ranks in one process`;
  }

  get size(): number {
    return this.room.size;
  }

  exchange(out: Visit["out"], into: Visit["into"]): Promise<void> {
    return this.room.exchange(this.rank, out, into);
  }

  abort(reason: string): Promise<void> {
    this.room.abort(new Error(`rank ${this.rank} failed: ${reason}`));
    return Promise.resolve();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
