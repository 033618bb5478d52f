// What connects ranks: processes or backends that run the same programs together, each on its share of a batch.

/**
 * One rank's door to the others. Every rank makes the same calls in the same order, and each waits until all have made it.
 *
 * @example Two ranks of one process add up what they have
 * ```ts
 * import { ranksInProcess } from "../../mod.ts";
 *
 * const [first, second] = ranksInProcess(2);
 * const a = Float32Array.of(1, 2), b = Float32Array.of(10, 20);
 * await Promise.all([first.allReduce(a), second.allReduce(b)]);
 * console.log(a, b); // [11, 22] both
 * ```
 */
export interface Communicator {
  /** Which of the ranks this is, from 0. */
  readonly rank: number;
  /** How many there are. */
  readonly size: number;
  /** What connects them, for people: `"MPI (Open MPI 4.1.4)"`. */
  readonly description: string;
  /** Replaces `data` by its sum over the ranks, added in float64 in the order of ranks: the same bits on each. */
  allReduce(data: Float32Array): Promise<void>;
  /** Every rank's `data`, in the order of ranks. All must give the same number of bytes. */
  allGather(data: Uint8Array): Promise<Uint8Array[]>;
  /** Replaces `data` by rank 0's, which must be as long. */
  broadcast(data: Uint8Array): Promise<void>;
  /** Waits until every rank has called it. */
  barrier(): Promise<void>;
  /** Makes every call of the other ranks, under way or to come, reject with an {Error} of this reason. */
  abort(reason: string): Promise<void>;
  /** Leaves. The other ranks must be about to leave too. */
  close(): Promise<void>;
}

/** A world of one rank, where nothing needs to be told to anyone. */
export const ALONE: Communicator = {
  rank: 0,
  size: 1,
  description: "one rank",
  allReduce: () => Promise.resolve(),
  allGather: (data) => Promise.resolve([data.slice()]),
  broadcast: () => Promise.resolve(),
  barrier: () => Promise.resolve(),
  abort: () => Promise.resolve(),
  close: () => Promise.resolve(),
};
