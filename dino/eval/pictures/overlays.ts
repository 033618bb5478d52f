// Pictures of attention: heat maps, masks over the image, and all heads in colours of their own.

import type { Raster } from "../../../models/image/raster.ts";

/** Control points of the heat map from black over violet and orange to light yellow, evenly spaced. */
const HEAT: readonly (readonly [number, number, number])[] = [
  [0, 0, 4],
  [31, 12, 72],
  [85, 15, 109],
  [136, 34, 106],
  [186, 54, 85],
  [227, 89, 51],
  [249, 140, 10],
  [249, 201, 50],
  [252, 255, 164],
];

/** Colours of heads: twelve hues that are far apart next to each other. */
const HEAD_COLOURS: readonly (readonly [number, number, number])[] = [
  [255, 64, 64],
  [64, 160, 255],
  [96, 224, 96],
  [255, 208, 48],
  [208, 96, 255],
  [64, 224, 224],
  [255, 144, 48],
  [144, 144, 255],
  [192, 240, 64],
  [255, 112, 184],
  [48, 192, 144],
  [224, 176, 144],
];

/** The colour of a head in every picture. */
export function headColour(head: number): readonly [number, number, number] {
  return HEAD_COLOURS[head % HEAD_COLOURS.length];
}

/** Values between which a map's colours change; those outside have the colour of the nearer end. */
export type HeatRange = readonly [darkest: number, brightest: number];

/** Smallest and largest value of a map. */
export function rangeOf(map: Float32Array): HeatRange {
  return [map.reduce((a, b) => Math.min(a, b), Infinity), map.reduce((a, b) => Math.max(a, b), -Infinity)];
}

/**
 * A map as colours.
 *
 * @param map [height, width]
 * @param range default: from its smallest value to its largest
 */
export function heatMap(map: Float32Array, height: number, width: number, range: HeatRange = rangeOf(map)): Raster {
  const data = new Uint8Array(height * width * 3);
  for (let i = 0; i < map.length; i++) {
    const place = shareOf(map[i], range) * (HEAT.length - 1);
    const low = Math.min(Math.floor(place), HEAT.length - 2), share = place - low;
    for (let c = 0; c < 3; c++) data[3 * i + c] = Math.round(HEAT[low][c] * (1 - share) + HEAT[low + 1][c] * share);
  }
  return { data, height, width };
}

/** Where a value lies in a range: 0 to 1. */
function shareOf(value: number, [darkest, brightest]: HeatRange): number {
  return brightest > darkest ? Math.max(0, Math.min(1, (value - darkest) / (brightest - darkest))) : 0;
}

/** An image that a map's colours cover, the more the larger its values; where they are small, it only darkens. */
export function overlayHeat(image: Raster, map: Float32Array, range: HeatRange = rangeOf(map)): Raster {
  const { height, width } = image;
  const { data } = heatMap(map, height, width, range);
  for (let i = 0; i < data.length; i++) {
    const cover = 0.25 + 0.55 * shareOf(map[Math.floor(i / 3)], range);
    data[i] = Math.round(image.data[i] * (1 - cover) + data[i] * cover);
  }
  return { data, height, width };
}

/**
 * An image with a mask laid over it: half transparent inside, with an outline.
 *
 * @param mask [height, width], any value but 0 counting as inside
 */
export function overlayMask(
  image: Raster,
  mask: ArrayLike<number>,
  colour: readonly [number, number, number] = HEAD_COLOURS[0],
): Raster {
  const { height, width } = image;
  const data = image.data.slice();
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const i = y * width + x;
      if (!mask[i]) continue;
      const edge = y === 0 || x === 0 || y === height - 1 || x === width - 1 || !mask[i - 1] || !mask[i + 1] ||
        !mask[i - width] || !mask[i + width];
      for (let c = 0; c < 3; c++) {
        data[3 * i + c] = edge ? colour[c] : Math.round((image.data[3 * i + c] + colour[c]) / 2);
      }
    }
  }
  return { data, height, width };
}

/**
 * All heads in one picture: a dark grey image, lit where heads look, each in its colour; where several look, their
 * colours mix by how strongly they do.
 *
 * @param maps [heads, height, width] at the image's size
 * @param masks of the same extents: where each head's attention counts
 * @param peaks attention that is drawn brightest, of each head; default: the largest there is in its map
 */
export function headsFigure(
  image: Raster,
  maps: Float32Array,
  masks: Uint8Array,
  heads: number,
  peaks: readonly number[] = Array.from(
    { length: heads },
    (_, h) => rangeOf(maps.subarray(h * maps.length / heads, (h + 1) * maps.length / heads))[1],
  ),
): Raster {
  const { height, width } = image;
  const pixels = height * width;
  const data = new Uint8Array(pixels * 3);
  for (let i = 0; i < pixels; i++) {
    const [r, g, b] = image.data.subarray(3 * i, 3 * i + 3);
    const grey = 0.299 * r + 0.587 * g + 0.114 * b;
    let total = 0, strongest = 0;
    const mixed = [0, 0, 0];
    for (let h = 0; h < heads; h++) {
      if (!masks[h * pixels + i]) continue;
      const weight = Math.min(1, maps[h * pixels + i] / (peaks[h] || 1));
      strongest = Math.max(strongest, weight);
      total += weight;
      for (let c = 0; c < 3; c++) mixed[c] += weight * headColour(h)[c];
    }
    const cover = total > 0 ? 0.35 + 0.5 * strongest : 0;
    for (let c = 0; c < 3; c++) {
      const colour = total > 0 ? mixed[c] / total : 0;
      data[3 * i + c] = Math.round(0.55 * grey * (1 - cover) + (0.35 * grey / 255 + 0.65) * colour * cover);
    }
  }
  return { data, height, width };
}

/** Pictures of one height side by side, with a gap between them. */
export function besideEachOther(pictures: readonly Raster[], gap = 4): Raster {
  const height = Math.max(...pictures.map((p) => p.height));
  const width = pictures.reduce((sum, p) => sum + p.width + gap, -gap);
  const data = new Uint8Array(height * width * 3).fill(255);
  let left = 0;
  for (const picture of pictures) {
    for (let y = 0; y < picture.height; y++) {
      const row = picture.data.subarray(y * picture.width * 3, (y + 1) * picture.width * 3);
      data.set(row, (y * width + left) * 3);
    }
    left += picture.width + gap;
  }
  return { data, height, width };
}
