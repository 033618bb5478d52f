// Reads batches ahead of training, into a few buffers used in turn.

import type { PixelBatch, PixelSource } from "./dataset.ts";

/** A batch read ahead, with the indices it holds. */
export interface PrefetchedBatch extends PixelBatch {
  /** Which images of the source. */
  indices: ArrayLike<number>;
}

/**
 * Reads batch after batch, `depth` of them ahead of the one in use.
 *
 * A batch's buffers are reused: they are valid until the next one is asked for.
 */
export async function* prefetch(
  source: PixelSource,
  batches: Iterable<ArrayLike<number>>,
  depth = 2,
): AsyncGenerator<PrefetchedBatch, void, void> {
  const upcoming = batches[Symbol.iterator]();
  const free: Uint8Array<ArrayBuffer>[] = [];
  const inFlight: Promise<PrefetchedBatch>[] = [];
  const startNext = () => {
    const next = upcoming.next();
    if (next.done) return;
    const read = source.readBatch(next.value, free.pop()).then((batch) => ({ ...batch, indices: next.value }));
    read.catch(() => {}); // reported where it is awaited
    inFlight.push(read);
  };
  try {
    for (let i = 0; i < Math.max(1, depth); i++) startNext();
    while (inFlight.length > 0) {
      const batch = await inFlight.shift()!;
      startNext();
      yield batch;
      free.push(new Uint8Array(batch.pixels.buffer));
    }
  } finally {
    await Promise.allSettled(inFlight);
  }
}
