// A tensor in a few numbers, for people to look at.

import type { SafetensorsDType } from "./safetensors.ts";
import { toFloat64 } from "./tensor_file.ts";

/** Of the finite elements; NaN where there is none. */
export interface TensorStatistics {
  /** Smallest. */
  readonly min: number;
  /** Largest. */
  readonly max: number;
  /** Average. */
  readonly mean: number;
  /** Standard deviation of all finite elements (not an estimate from a sample). */
  readonly std: number;
  /** Elements that are NaN or infinite. */
  readonly notFinite: number;
}

/** Elements that are widened at once. */
const CHUNK_BYTES = 2 ** 20;

/** Statistics of raw little-endian elements. */
export function tensorStatistics(dtype: SafetensorsDType, bytes: Uint8Array<ArrayBuffer>): TensorStatistics {
  let min = Infinity, max = -Infinity, mean = 0, squares = 0, count = 0, notFinite = 0;
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    for (const value of toFloat64(dtype, bytes.slice(at, at + CHUNK_BYTES))) {
      if (!Number.isFinite(value)) {
        notFinite++;
        continue;
      }
      min = Math.min(min, value);
      max = Math.max(max, value);
      // Welford: no cancellation between large sums.
      const before = value - mean;
      mean += before / ++count;
      squares += before * (value - mean);
    }
  }
  if (count === 0) return { min: NaN, max: NaN, mean: NaN, std: NaN, notFinite };
  return { min, max, mean, std: Math.sqrt(squares / count), notFinite };
}
