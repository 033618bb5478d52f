// Which images each update sees: a permutation an epoch, cut into batches, a function of seed and epoch alone; and which a rank sees.

import { epochPermutation } from "../models/rng.ts";
import { type Share, WHOLE } from "./ranks/ranks.ts";

/** What part of an epoch. */
export interface EpochRange {
  /** Images of one batch. */
  readonly batch: number;
  /** First batch, and the one after the last. */
  readonly start: number;
  readonly end: number;
}

/**
 * Batches of an epoch's order, or one rank's share of each. Images that do not fill a batch wait for another epoch.
 *
 * @param images in the data set
 */
export function* epochBatches(
  images: number,
  seed: number,
  epoch: number,
  { batch, start, end }: EpochRange,
  { rank, size }: Share = WHOLE,
): Generator<Uint32Array> {
  const order = epochPermutation(images, seed, epoch), each = batch / size;
  for (let i = start; i < end; i++) yield order.subarray(i * batch + rank * each, i * batch + (rank + 1) * each);
}
