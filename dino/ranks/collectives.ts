// Collective calls over anything that carries bytes between ranks: sums in one order, the same bits everywhere.

import type { Communicator } from "../../models/graph/communicator.ts";

/** Carries bytes between ranks. All ranks exchange at the same time, again and again. */
export interface Transport {
  /** Which of the ranks this is, from 0. */
  readonly rank: number;
  /** How many there are. */
  readonly size: number;
  /** What carries the bytes, for people. */
  readonly description: string;
  /**
   * Sends `out[r]` to rank r and fills `into[r]` with what it sends here; nothing goes where an entry is missing. Lengths must be
   * what the other rank expects.
   */
  exchange(out: readonly (Uint8Array | undefined)[], into: readonly (Uint8Array | undefined)[]): Promise<void>;
  /** See {@linkcode Communicator.abort}. */
  abort(reason: string): Promise<void>;
  /** Leaves; the other ranks are about to leave too. */
  close(): Promise<void>;
}

/** Floats up to which everybody tells everybody everything: one exchange instead of two. */
const SMALL = 1 << 14;

/** Floats summed at a time, which bounds the room for what the others send. */
const CHUNK = 1 << 22;

/** Floats whose float64 sums stay in a core's cache. */
const BLOCK = 4096;

/** A communicator over a transport. */
export function communicate(transport: Transport): Communicator {
  return new Collectives(transport);
}

class Collectives implements Communicator {
  readonly #sums = new Float64Array(BLOCK);
  readonly #others: Float32Array[];

  constructor(readonly transport: Transport) {
    this.#others = Array.from({ length: transport.size }, () => new Float32Array(0));
  }

  get rank(): number {
    return this.transport.rank;
  }

  get size(): number {
    return this.transport.size;
  }

  get description(): string {
    return this.transport.description;
  }

  /**
   * Large data is cut into a slice a rank: each rank adds up its slice of everyone's data, then hands it round. Libraries choose
   * among algorithms whose sums round differently; here element i is Σᵣ xᵣ[i] in float64 in the order of ranks, whoever adds it.
   */
  async allReduce(data: Float32Array): Promise<void> {
    if (this.size === 1) return;
    if (data.length <= SMALL) {
      const parts = await this.allGather(bytesOf(data));
      this.#sum(parts.map((part) => new Float32Array(part.buffer)), data);
      return;
    }
    for (let start = 0; start < data.length; start += CHUNK) {
      await this.#reduceChunk(data.subarray(start, Math.min(data.length, start + CHUNK)));
    }
  }

  async #reduceChunk(data: Float32Array): Promise<void> {
    const { rank, size, transport } = this;
    const slices = range(size).map((r) =>
      data.subarray(Math.floor(r * data.length / size), Math.floor((r + 1) * data.length / size))
    );
    const own = slices[rank];
    const parts = range(size).map((r) => r === rank ? own : this.#room(r, own.length));
    const toOthers = (arrays: readonly Float32Array[]) => arrays.map((a, r) => r === rank ? undefined : bytesOf(a));
    await transport.exchange(toOthers(slices), toOthers(parts));
    this.#sum(parts, own);
    await transport.exchange(toOthers(range(size).map(() => own)), toOthers(slices));
  }

  /** into ← Σ parts; `into` may be one of them. */
  #sum(parts: readonly Float32Array[], into: Float32Array): void {
    const sums = this.#sums;
    for (let start = 0; start < into.length; start += BLOCK) {
      const count = Math.min(BLOCK, into.length - start);
      sums.fill(0);
      for (const part of parts) for (let i = 0; i < count; i++) sums[i] += part[start + i];
      for (let i = 0; i < count; i++) into[start + i] = sums[i];
    }
  }

  #room(rank: number, length: number): Float32Array {
    if (this.#others[rank].length < length) this.#others[rank] = new Float32Array(length);
    return this.#others[rank].subarray(0, length);
  }

  async allGather(data: Uint8Array): Promise<Uint8Array[]> {
    const { rank, size, transport } = this;
    const parts = range(size).map((r) => r === rank ? data.slice() : new Uint8Array(data.length));
    const others = (array: readonly Uint8Array[]) => array.map((part, r) => r === rank ? undefined : part);
    await transport.exchange(others(parts.map(() => data)), others(parts));
    return parts;
  }

  async broadcast(data: Uint8Array): Promise<void> {
    const { rank, size, transport } = this;
    const first = rank === 0;
    await transport.exchange(
      range(size).map((r) => first && r !== 0 ? data : undefined),
      range(size).map((r) => !first && r === 0 ? data : undefined),
    );
  }

  async barrier(): Promise<void> {
    await this.allGather(new Uint8Array(1));
  }

  abort(reason: string): Promise<void> {
    return this.transport.abort(reason);
  }

  close(): Promise<void> {
    return this.transport.close();
  }
}

const range = (n: number) => [...Array(n).keys()];

function bytesOf(data: Float32Array): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}
