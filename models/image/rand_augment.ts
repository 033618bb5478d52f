// RandAugment on 8-bit images: two operations of fifteen, drawn for each image, each value that of Pillow.

import type { CounterRandom } from "../rng.ts";
import { type AffineMatrix, rotation, transformAffine } from "./affine.ts";
import { adjust, blend } from "./color.ts";
import { type Raster, raster } from "./raster.ts";

/** The operations, in the order they are numbered; of "increasing" kinds the effect grows with the magnitude. */
export const RAND_AUGMENT_OPERATIONS = [
  "autoContrast",
  "equalize",
  "invert",
  "rotate",
  "posterize",
  "solarize",
  "solarizeAdd",
  "color",
  "contrast",
  "brightness",
  "sharpness",
  "shearX",
  "shearY",
  "translateX",
  "translateY",
] as const;

/** Name of an operation. */
export type RandAugmentOperation = (typeof RAND_AUGMENT_OPERATIONS)[number];

/** How strongly and how often images are changed; DeiT's values are "rand-m9-mstd0.5-inc1". */
export interface RandAugmentPolicy {
  /** Mean of the magnitude, 0 … 10. */
  readonly magnitude: number;
  /** Standard deviation of the magnitude. */
  readonly deviation: number;
  /** Operations drawn for an image; each is then applied with probability one half. */
  readonly layers: number;
  /** Colour of what a geometric operation brings in from outside: red, green, blue, 0 … 255. */
  readonly fill: readonly number[];
}

/** Largest magnitude. */
const LARGEST = 10;
const PROBABILITY = 0.5;

/** Draws operations for one image and applies them. */
export function randAugment(image: Raster, random: CounterRandom, policy: RandAugmentPolicy): Raster {
  let current = image;
  for (let layer = 0; layer < policy.layers; layer++) {
    const operation = RAND_AUGMENT_OPERATIONS[random.integer(RAND_AUGMENT_OPERATIONS.length)];
    const magnitude = policy.magnitude + policy.deviation * random.normal();
    const negative = random.chance(0.5);
    if (!random.chance(PROBABILITY)) continue;
    const level = Math.min(LARGEST, Math.max(0, magnitude)) / LARGEST;
    current = applyRandAugment(current, operation, level, negative, policy.fill);
  }
  return current;
}

/**
 * One operation.
 *
 * @param level 0 … 1: a tenth of the magnitude
 * @param negative the other direction, where there are two
 * @returns another image; the given one stays as it is
 */
export function applyRandAugment(
  image: Raster,
  operation: RandAugmentOperation,
  level: number,
  negative: boolean,
  fill: readonly number[],
): Raster {
  const { height, width } = image;
  const signed = (most: number) => (negative ? -1 : 1) * level * most;
  const factor = Math.fround(Math.max(0.1, 1 + signed(0.9)));
  const affine = (...matrix: AffineMatrix) => transformAffine(image, matrix, fill);
  switch (operation) {
    case "autoContrast":
      return perChannel(image, stretched);
    case "equalize":
      return perChannel(image, equalized);
    case "invert":
      return mapped(image, (v) => 255 - v);
    case "rotate":
      return transformAffine(image, rotation(signed(30), height, width), fill);
    case "posterize": {
      const mask = 256 - (1 << (8 - (4 - Math.trunc(level * 4))));
      return mapped(image, (v) => v & mask);
    }
    case "solarize": {
      const threshold = 256 - Math.min(256, Math.trunc(level * 256));
      return mapped(image, (v) => v < threshold ? v : 255 - v);
    }
    case "solarizeAdd": {
      const added = Math.min(128, Math.trunc(level * 110));
      return mapped(image, (v) => v < 128 ? Math.min(255, v + added) : v);
    }
    case "color":
      return adjusted(image, "saturation", factor);
    case "contrast":
    case "brightness":
      return adjusted(image, operation, factor);
    case "sharpness":
      return sharpened(image, factor);
    case "shearX":
      return affine(1, signed(0.3), 0, 0, 1, 0);
    case "shearY":
      return affine(1, 0, 0, signed(0.3), 1, 0);
    case "translateX":
      return affine(1, 0, signed(0.45) * width, 0, 1, 0);
    case "translateY":
      return affine(1, 0, 0, 0, 1, signed(0.45) * height);
  }
}

function mapped({ data, height, width }: Raster, change: (value: number) => number): Raster {
  return raster(data.map(change), height, width);
}

function adjusted({ data, height, width }: Raster, kind: "saturation" | "contrast" | "brightness", factor: number) {
  const copy = data.slice();
  adjust(copy, kind, factor);
  return raster(copy, height, width);
}

/** Sends each channel through the table its histogram gives. */
function perChannel({ data, height, width }: Raster, tableOf: (histogram: Uint32Array) => Uint8Array): Raster {
  const tables = [0, 1, 2].map((channel) => {
    const histogram = new Uint32Array(256);
    for (let i = channel; i < data.length; i += 3) histogram[data[i]]++;
    return tableOf(histogram);
  });
  return raster(data.map((value, i) => tables[i % 3][value]), height, width);
}

/** The darkest level becomes 0, the lightest 255. */
function stretched(histogram: Uint32Array): Uint8Array {
  const low = histogram.findIndex((n) => n > 0), high = histogram.findLastIndex((n) => n > 0);
  if (high <= low) return Uint8Array.from(histogram.keys());
  const scale = 255 / (high - low), offset = -low * scale;
  return Uint8Array.from(histogram.keys(), (v) => Math.min(255, Math.max(0, Math.trunc(v * scale + offset))));
}

/** Levels spread so that each is about as frequent as any other. */
function equalized(histogram: Uint32Array): Uint8Array {
  const highest = histogram.findLastIndex((n) => n > 0);
  const step = Math.floor((histogram.reduce((a, b) => a + b, 0) - histogram[highest]) / 255);
  if (step === 0) return Uint8Array.from(histogram.keys());
  let sum = Math.floor(step / 2);
  return Uint8Array.from(histogram, (n) => {
    const level = Math.min(255, Math.floor(sum / step));
    sum += n;
    return level;
  });
}

/** Blends with a smoothed copy (a 3 × 3 kernel of ones with 5 in its middle); the outermost pixels are not smoothed. */
function sharpened({ data, height, width }: Raster, factor: number): Raster {
  const out = data.slice(), row = 3 * width;
  for (let y = 1; y < height - 1; y++) {
    for (let i = y * row + 3; i < (y + 1) * row - 3; i++) {
      let sum = 4 * data[i];
      for (let line = i - row; line <= i + row; line += row) sum += data[line - 3] + data[line] + data[line + 3];
      out[i] = blend(Math.floor(sum / 13 + 0.5), data[i], factor);
    }
  }
  return raster(out, height, width);
}
