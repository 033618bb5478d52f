// Resizing that only happens on the host: thumbnails of the retrieval evaluation, nearest-neighbour masks.
import { emptyRaster, type Raster } from "./raster.ts";
import { type Interpolation, resize } from "./resample.ts";

const REDUCING_GAP = 2; // Pillow's default: average by whole factors first, down to twice the wanted size

/**
 * Pillow's `thumbnail`: within maxSide × maxSide, aspect kept, never enlarged.
 *
 * @returns the image itself when it fits already
 */
export function thumbnail(image: Raster, maxSide: number, interpolation: Interpolation = "lanczos"): Raster {
  const target = thumbnailSize(image.height, image.width, maxSide);
  if (!target) return image;
  const factorX = Math.max(Math.trunc(image.width / target.width / REDUCING_GAP), 1);
  const factorY = Math.max(Math.trunc(image.height / target.height / REDUCING_GAP), 1);
  if (factorX === 1 && factorY === 1) return resize(image, target.height, target.width, interpolation);
  return resize(reduce(image, factorY, factorX), target.height, target.width, interpolation, {
    height: Math.fround(image.height / factorY),
    width: Math.fround(image.width / factorX),
  });
}

/** Size of a thumbnail, or undefined when the image fits already. */
export function thumbnailSize(
  height: number,
  width: number,
  maxSide: number,
): { height: number; width: number } | undefined {
  if (!(Number.isInteger(maxSide) && maxSide >= 1)) throw new RangeError(`thumbnail: side ${maxSide} is not ≥ 1`);
  if (maxSide >= width && maxSide >= height) return undefined;
  const aspect = width / height;
  if (aspect <= 1) {
    return { height: maxSide, width: closest(maxSide * aspect, (n) => Math.abs(aspect - n / maxSide)) };
  }
  return {
    height: closest(maxSide / aspect, (n) => n === 0 ? 0 : Math.abs(aspect - maxSide / n)),
    width: maxSide,
  };
}

function closest(value: number, error: (n: number) => number): number {
  const low = Math.floor(value), high = Math.ceil(value);
  return Math.max(error(high) < error(low) ? high : low, 1);
}

/** Averages blocks of factorY × factorX pixels; the last ones may be smaller. */
export function reduce(image: Raster, factorY: number, factorX: number): Raster {
  const target = emptyRaster(Math.ceil(image.height / factorY), Math.ceil(image.width / factorX));
  for (let y = 0; y < target.height; y++) {
    const bottom = Math.min((y + 1) * factorY, image.height);
    for (let x = 0; x < target.width; x++) {
      const right = Math.min((x + 1) * factorX, image.width);
      const count = (bottom - y * factorY) * (right - x * factorX);
      const multiplier = Math.trunc(Math.fround(2 ** 24 / count)); // Pillow divides in float32
      for (let c = 0; c < 3; c++) {
        let sum = Math.floor(count / 2);
        for (let sy = y * factorY; sy < bottom; sy++) {
          for (let sx = x * factorX; sx < right; sx++) sum += image.data[(sy * image.width + sx) * 3 + c];
        }
        target.data[(y * target.width + x) * 3 + c] = Math.floor((sum * multiplier) / 2 ** 24);
      }
    }
  }
  return target;
}

/** A one-channel index mask at another size: the sample each output centre falls on, as Pillow finds it. */
export function resizeMaskNearest(
  mask: Uint8Array,
  height: number,
  width: number,
  targetHeight: number,
  targetWidth: number,
): Uint8Array<ArrayBuffer> {
  const target = new Uint8Array(targetHeight * targetWidth);
  const rows = nearestSamples(height, targetHeight), columns = nearestSamples(width, targetWidth);
  for (let y = 0; y < targetHeight; y++) {
    for (let x = 0; x < targetWidth; x++) target[y * targetWidth + x] = mask[rows[y] * width + columns[x]];
  }
  return target;
}

/** Pillow adds up the step from sample to sample, which decides where a centre falls exactly between two of them. */
function nearestSamples(inputs: number, outputs: number): Int32Array {
  const step = inputs / outputs;
  const samples = new Int32Array(outputs);
  for (let o = 0, at = step * 0.5; o < outputs; o++, at += step) samples[o] = Math.min(Math.floor(at), inputs - 1);
  return samples;
}
