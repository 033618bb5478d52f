// Random erasing: a rectangle of an 8-bit image becomes noise.

import type { CounterRandom } from "../rng.ts";
import type { Raster } from "./raster.ts";

/** Area of the rectangle over that of the image, and height over width, drawn by its logarithm. */
const AREA = [0.02, 1 / 3] as const, ASPECT = [0.3, 1 / 0.3] as const;
/** Rectangles that do not fit are drawn again this often. */
const ATTEMPTS = 10;

/** What the noise looks like: normal, with the mean and deviation that normalisation turns into 0 and 1. */
export interface NoiseColours {
  /** Of red, green and blue, 0 … 1. */
  readonly mean: readonly number[];
  /** Likewise. */
  readonly deviation: readonly number[];
}

/**
 * Replaces a rectangle of random size and place by noise, each value of its own, in place. Noise that 8 bits cannot hold
 * (beyond about two deviations) becomes black or white.
 */
export function eraseRectangle(image: Raster, random: CounterRandom, { mean, deviation }: NoiseColours): void {
  const { data, height, width } = image;
  const between = (low: number, high: number) => low + (high - low) * random.float();
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const area = between(...AREA) * height * width;
    const aspect = Math.exp(between(Math.log(ASPECT[0]), Math.log(ASPECT[1])));
    const rows = Math.round(Math.sqrt(area * aspect)), columns = Math.round(Math.sqrt(area / aspect));
    if (rows >= height || columns >= width) continue;
    const top = random.integer(height - rows + 1), left = random.integer(width - columns + 1);
    for (let y = top; y < top + rows; y++) {
      for (let i = 3 * (y * width + left); i < 3 * (y * width + left + columns); i++) {
        const level = Math.round(255 * (mean[i % 3] + deviation[i % 3] * random.normal()));
        data[i] = Math.min(255, Math.max(0, level));
      }
    }
    return;
  }
}
