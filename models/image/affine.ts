// Affine transforms of 8-bit images as Pillow computes them: bicubic with a = −1, what lies outside in one colour.

import { emptyRaster, type Raster } from "./raster.ts";

/** Where an output pixel comes from: x' = a·x + b·y + c, y' = d·x + e·y + f, in pixels, centres at halves. */
export type AffineMatrix = readonly [a: number, b: number, c: number, d: number, e: number, f: number];

/** The matrix of a rotation about the centre, counter-clockwise in degrees. */
export function rotation(degrees: number, height: number, width: number): AffineMatrix {
  const angle = -(degrees * Math.PI) / 180;
  const round = (v: number) => Number(v.toFixed(15)); // as Pillow does, so that right angles are exact
  const [cos, sin] = [round(Math.cos(angle)), round(Math.sin(angle))];
  const x = width / 2, y = height / 2;
  return [cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y];
}

/**
 * An image seen through a matrix, at its own size.
 *
 * @param fill colour of pixels that come from outside
 */
export function transformAffine(image: Raster, matrix: AffineMatrix, fill: readonly number[]): Raster {
  const { data, height, width } = image;
  const [a, b, c, d, e, f] = matrix;
  const target = emptyRaster(height, width);
  const rows = new Int32Array(4), columns = new Int32Array(4);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at += 3) {
      const sourceX = a * (x + 0.5) + b * (y + 0.5) + c, sourceY = d * (x + 0.5) + e * (y + 0.5) + f;
      if (!(sourceX >= 0 && sourceX < width && sourceY >= 0 && sourceY < height)) {
        for (let k = 0; k < 3; k++) target.data[at + k] = fill[k];
        continue;
      }
      const left = Math.floor(sourceX - 0.5), top = Math.floor(sourceY - 0.5);
      const dx = sourceX - 0.5 - left, dy = sourceY - 0.5 - top;
      for (let k = 0; k < 4; k++) {
        columns[k] = 3 * Math.min(width - 1, Math.max(0, left - 1 + k));
        rows[k] = 3 * width * Math.min(height - 1, Math.max(0, top - 1 + k));
      }
      for (let k = 0; k < 3; k++) {
        const line = (row: number) =>
          cubic(
            data[row + columns[0] + k],
            data[row + columns[1] + k],
            data[row + columns[2] + k],
            data[row + columns[3] + k],
            dx,
          );
        const value = cubic(line(rows[0]), line(rows[1]), line(rows[2]), line(rows[3]), dy);
        target.data[at + k] = value <= 0 ? 0 : value >= 255 ? 255 : Math.trunc(value);
      }
    }
  }
  return target;
}

/** The value `t` of the way from the second to the third of four neighbours. */
function cubic(v1: number, v2: number, v3: number, v4: number, t: number): number {
  return v2 + t * (v3 - v1 + t * (2 * (v1 - v2) + v3 - v4 + t * (v2 - v1 + v4 - v3)));
}
