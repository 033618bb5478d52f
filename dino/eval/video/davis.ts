// The measures of DAVIS: region similarity J, boundary accuracy F, and how they develop over a sequence.

import { jaccard } from "../pictures/attention.ts";

/** Boundaries may be off by this share of the image's diagonal. */
export const BOUNDARY_TOLERANCE = 0.008;

/** Measures of one object in one frame, each 0 … 1. */
export interface FrameMeasures {
  /** Jaccard index of the regions. */
  readonly J: number;
  /** Harmonic mean of boundary precision and recall. */
  readonly F: number;
  /** Share of the predicted boundary that meets the true one. */
  readonly precision: number;
  /** Share of the true boundary that is met. */
  readonly recall: number;
}

/** Radius in pixels within which boundaries count as met. */
export function boundaryRadius(height: number, width: number, tolerance: number = BOUNDARY_TOLERANCE): number {
  return tolerance >= 1 ? tolerance : Math.ceil(tolerance * Math.hypot(height, width));
}

/**
 * J and F of a predicted mask.
 *
 * @example A square that is one pixel off
 * ```ts
 * import { measureFrame } from "../../../mod.ts";
 *
 * const square = (left: number) => Uint8Array.from({ length: 64 }, (_, i) => Number(i % 8 >= left && i % 8 < left + 4));
 * const { J, F } = measureFrame(square(2), square(3), 8, 8, 1);
 * console.log(J.toFixed(2), F); // 0.60 1
 * ```
 *
 * @param predicted [height, width], any value but 0 counting as inside
 * @throws {RangeError} if the masks are not of this size
 */
export function measureFrame(
  predicted: Uint8Array,
  truth: Uint8Array,
  height: number,
  width: number,
  tolerance: number = BOUNDARY_TOLERANCE,
): FrameMeasures {
  if (predicted.length !== height * width || truth.length !== height * width) {
    throw new RangeError(`davis: masks of ${predicted.length} and ${truth.length} pixels for ${height}×${width}`);
  }
  const J = jaccard(predicted, truth);
  const radius = boundaryRadius(height, width, tolerance);
  const ours = boundaryOf(predicted, height, width), theirs = boundaryOf(truth, height, width);
  const nearOurs = dilate(ours, height, width, radius), nearTheirs = dilate(theirs, height, width, radius);
  let oursLength = 0, theirsLength = 0, oursMet = 0, theirsMet = 0;
  for (let i = 0; i < ours.length; i++) {
    oursLength += ours[i];
    theirsLength += theirs[i];
    oursMet += ours[i] & nearTheirs[i];
    theirsMet += theirs[i] & nearOurs[i];
  }
  // Nothing predicted is never wrong, and finds nothing unless there is nothing to find.
  const precision = oursLength > 0 ? oursMet / oursLength : 1;
  const recall = theirsLength > 0 ? theirsMet / theirsLength : 1;
  const F = precision + recall === 0 ? 0 : 2 * precision * recall / (precision + recall);
  return { J, F, precision, recall };
}

/**
 * Boundary of a mask, one pixel wide: pixels that differ from their right, lower or lower right neighbour.
 *
 * @returns [height, width] of 0 and 1
 */
export function boundaryOf(mask: Uint8Array, height: number, width: number): Uint8Array {
  const boundary = new Uint8Array(height * width);
  const inside = (y: number, x: number) => mask[Math.min(y, height - 1) * width + Math.min(x, width - 1)] !== 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const here = inside(y, x);
      const differs = here !== inside(y, x + 1) || here !== inside(y + 1, x) || here !== inside(y + 1, x + 1);
      boundary[y * width + x] = differs ? 1 : 0;
    }
  }
  return boundary;
}

/** Every pixel within `radius` of a set one. */
function dilate(mask: Uint8Array, height: number, width: number, radius: number): Uint8Array {
  const grown = new Uint8Array(height * width);
  const reach = Math.floor(radius);
  for (let at = 0; at < mask.length; at++) {
    if (!mask[at]) continue;
    const y = Math.floor(at / width), x = at % width;
    for (let dy = -reach; dy <= reach; dy++) {
      if (y + dy < 0 || y + dy >= height) continue;
      const half = Math.floor(Math.sqrt(radius * radius - dy * dy));
      const row = (y + dy) * width;
      grown.fill(1, row + Math.max(0, x - half), row + Math.min(width - 1, x + half) + 1);
    }
  }
  return grown;
}

/** A measure over the frames of one object: its mean, the share of frames above one half, and how much it falls. */
export interface SequenceMeasure {
  /** Over all frames. */
  readonly mean: number;
  /** Share of frames above one half. */
  readonly recall: number;
  /** Mean of the first of four parts of the frames less that of the last: positive when the object is being lost. */
  readonly decay: number;
}

/** Bins of a sequence between whose first and last the decay is measured. */
const BINS = 4;

/** Summarises a measure over frames as DAVIS does, NaN left out of the means. */
export function summarizeSequence(values: readonly number[]): SequenceMeasure {
  const mean = (part: readonly number[]) => {
    const known = part.filter((v) => !Number.isNaN(v));
    return known.length ? known.reduce((a, b) => a + b, 0) / known.length : NaN;
  };
  // Neighbouring bins share a frame: their ends are spread evenly from the first to the last frame, and rounded.
  const ends = Array.from({ length: BINS + 1 }, (_, i) => Math.round((values.length - 1) * i / BINS + 1e-10));
  const bin = (i: number) => values.slice(ends[i], ends[i + 1] + 1);
  return {
    mean: mean(values),
    recall: mean(values.map((v) => Number.isNaN(v) ? NaN : v > 0.5 ? 1 : 0)),
    decay: mean(bin(0)) - mean(bin(BINS - 1)),
  };
}
