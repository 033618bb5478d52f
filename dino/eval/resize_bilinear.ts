// Bilinear resizing of a normalised image by a factor, as PyTorch's `interpolate(scale_factor)` does it: no antialiasing.

import { type Raster, raster } from "../../models/image/raster.ts";
import { bilinearAxis } from "../../models/interpolate.ts";

/**
 * Resizes planes by one factor; sides are cut to whole pixels, but the sampling keeps the factor itself.
 *
 * @param planes [channels, height, width]
 * @throws {RangeError} if nothing would be left
 */
export function resizeBilinear(
  planes: Float32Array,
  channels: number,
  height: number,
  width: number,
  factor: number,
): { data: Float32Array<ArrayBuffer>; height: number; width: number } {
  const H = Math.floor(height * factor), W = Math.floor(width * factor);
  if (!(H >= 1 && W >= 1)) throw new RangeError(`resize: ${height}×${width} times ${factor} leaves no pixel`);
  const rows = twoTaps(height, H, factor), columns = twoTaps(width, W, factor);
  const data = new Float32Array(channels * H * W);
  for (let c = 0; c < channels; c++) {
    const plane = planes.subarray(c * height * width, (c + 1) * height * width);
    for (let y = 0; y < H; y++) {
      const top = rows.first[y] * width, bottom = rows.second[y] * width, down = rows.weight[y];
      for (let x = 0; x < W; x++) {
        const left = columns.first[x], right = columns.second[x], across = columns.weight[x];
        const above = plane[top + left] * (1 - across) + plane[top + right] * across;
        const below = plane[bottom + left] * (1 - across) + plane[bottom + right] * across;
        data[(c * H + y) * W + x] = above * (1 - down) + below * down;
      }
    }
  }
  return { data, height: H, width: W };
}

/** An 8-bit image at another size without antialiasing, as OpenCV's bilinear resize: the video evaluation's frames. */
export function resizeFrame(image: Raster, height: number, width: number): Raster {
  const rows = twoTaps(image.height, height, height / image.height);
  const columns = twoTaps(image.width, width, width / image.width);
  const data = new Uint8Array(height * width * 3);
  for (let y = 0; y < height; y++) {
    const top = rows.first[y] * image.width, bottom = rows.second[y] * image.width, down = rows.weight[y];
    for (let x = 0; x < width; x++) {
      const left = columns.first[x], right = columns.second[x], across = columns.weight[x];
      for (let c = 0; c < 3; c++) {
        const at = (pixel: number) => image.data[3 * pixel + c];
        const above = at(top + left) * (1 - across) + at(top + right) * across;
        const below = at(bottom + left) * (1 - across) + at(bottom + right) * across;
        data[(y * width + x) * 3 + c] = Math.round(above * (1 - down) + below * down);
      }
    }
  }
  return raster(data, height, width);
}

/** Bilinear weights of an axis as two inputs for each output, and the share of the second. */
export function twoTaps(
  inputs: number,
  outputs: number,
  factor: number,
): { first: Int32Array; second: Int32Array; weight: Float64Array } {
  const { weights } = bilinearAxis(inputs, outputs, factor);
  const first = new Int32Array(outputs), second = new Int32Array(outputs), weight = new Float64Array(outputs);
  for (let o = 0; o < outputs; o++) {
    const row = weights.subarray(o * inputs, (o + 1) * inputs);
    first[o] = row.findIndex((w) => w !== 0);
    second[o] = Math.min(first[o] + 1, inputs - 1);
    weight[o] = second[o] === first[o] ? 0 : row[second[o]];
  }
  return { first, second, weight };
}
