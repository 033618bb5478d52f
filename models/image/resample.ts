// Antialiased resampling as Pillow does it: tap tables in fixed point, two passes, 8 bits between them.
import { emptyRaster, type Raster } from "./raster.ts";

/** Filters of Pillow; `bicubic` has a = −0.5. */
export type Interpolation = "bilinear" | "bicubic" | "lanczos";

/** Weights are multiples of 2^-22, so that 255 times the sum of their magnitudes stays within 32 bits. */
export const WEIGHT_BITS = 22;

/** Words for each output sample before the weights of an axis: first source sample, number of taps. */
export const TAP_HEADER = 2;

/** Rows of weights begin at multiples of this many words and are filled up with zeros: kernels read whole vectors. */
const TAP_VECTOR = 4;

/** Words before the first row of weights of an axis of `count` samples. */
export function tapHeaderWords(count: number): number {
  return Math.ceil((count * TAP_HEADER) / TAP_VECTOR) * TAP_VECTOR;
}

function cubic(x: number): number {
  const a = -0.5;
  x = Math.abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

function triangle(x: number): number {
  x = Math.abs(x);
  return x < 1 ? 1 - x : 0;
}

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

function lanczos(x: number): number {
  return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
}

const FILTERS: Record<Interpolation, { support: number; weight: (x: number) => number }> = {
  bilinear: { support: 1, weight: triangle },
  bicubic: { support: 2, weight: cubic },
  lanczos: { support: 3, weight: lanczos },
};

const FILTER_NAMES = Object.keys(FILTERS) as Interpolation[];

/** Words of a row of up to `taps` weights. */
export function tapRowWords(taps: number): number {
  return Math.ceil(taps / TAP_VECTOR) * TAP_VECTOR;
}

/** Largest number of taps of one output sample when `source` samples become `target`. */
export function maxTaps(source: number, target: number, interpolation: Interpolation = "bicubic"): number {
  return Math.ceil(FILTERS[interpolation].support * Math.max(source / target, 1)) * 2 + 1;
}

/** One axis of a resampling. */
export interface Axis {
  /** Samples there are. */
  source: number;
  /** Samples the whole axis becomes. */
  target: number;
  /** First of the target samples wanted; a centre crop takes fewer than all. */
  windowStart: number;
  /** Target samples wanted. */
  windowCount: number;
  /** Last sample first: a flip costs nothing. */
  reversed: boolean;
  /** End of the source interval, when it is not `source` (Pillow's fractional box after a reduction). */
  sourceEnd?: number;
}

/** Words {@link writeTaps} takes for an axis. */
export function tapWords(axis: Axis, interpolation: Interpolation): number {
  const stride = tapRowWords(maxTaps(axis.sourceEnd ?? axis.source, axis.target, interpolation));
  return tapHeaderWords(axis.windowCount) + axis.windowCount * stride;
}

let weights = new Float64Array(256); // one row of taps before rounding

/** Tables of whole axes by {@link keyOf}: a crop's sides are few whole numbers, and drawing crops is what the host does while a GPU works. */
const known = new Map<number, Int32Array>();
let knownWords = 0;
/** 32 MB: every table of images up to about 1000 pixels a side. */
const MOST_KNOWN_WORDS = 2 ** 23;

/** Tells whole axes apart; undefined for others, whose tables are not worth keeping. */
function keyOf(axis: Axis, interpolation: Interpolation): number | undefined {
  const { source, target, windowStart, windowCount, reversed, sourceEnd } = axis;
  if (sourceEnd !== undefined || windowStart !== 0 || windowCount !== target || source >= 2 ** 20) return undefined;
  return ((source * 2 ** 20 + target) * 2 + Number(reversed)) * 4 + FILTER_NAMES.indexOf(interpolation);
}

/**
 * Writes the taps of an axis at `offset`: for each wanted output sample its first source sample and
 * number of taps, then the rows of weights.
 *
 * @param offset a multiple of 4, and so is what {@link tapWords} says is written
 * @returns words from one row of weights to the next
 */
export function writeTaps(taps: Int32Array, offset: number, axis: Axis, interpolation: Interpolation): number {
  const key = keyOf(axis, interpolation);
  if (key === undefined) return computeTaps(taps, offset, axis, interpolation);
  const words = tapWords(axis, interpolation);
  let table = known.get(key);
  if (!table) {
    table = new Int32Array(words);
    computeTaps(table, 0, axis, interpolation);
    if (knownWords + words > MOST_KNOWN_WORDS) {
      known.clear();
      knownWords = 0;
    }
    known.set(key, table);
    knownWords += words;
  }
  taps.set(table, offset);
  return tapRowWords(maxTaps(axis.source, axis.target, interpolation));
}

function computeTaps(taps: Int32Array, offset: number, axis: Axis, interpolation: Interpolation): number {
  const { support: radius, weight } = FILTERS[interpolation];
  const scale = (axis.sourceEnd ?? axis.source) / axis.target;
  const stretch = Math.max(scale, 1); // shrinking widens the filter: that is the antialiasing
  const shrink = 1 / stretch;
  const support = radius * stretch;
  const stride = tapRowWords(maxTaps(axis.sourceEnd ?? axis.source, axis.target, interpolation));
  const rows = offset + tapHeaderWords(axis.windowCount);
  if (weights.length < stride) weights = new Float64Array(stride);
  for (let i = 0; i < axis.windowCount; i++) {
    const centre = (axis.windowStart + i + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const count = Math.min(Math.trunc(centre + support + 0.5), axis.source) - first;
    let sum = 0;
    for (let k = 0; k < count; k++) {
      const w = weight((k + first - centre + 0.5) * shrink);
      weights[k] = w;
      sum += w;
    }
    const position = axis.reversed ? axis.windowCount - 1 - i : i;
    taps[offset + TAP_HEADER * position] = first;
    taps[offset + TAP_HEADER * position + 1] = count;
    const row = rows + position * stride;
    for (let k = 0; k < count; k++) {
      const w = (sum === 0 ? weights[k] : weights[k] / sum) * 2 ** WEIGHT_BITS;
      taps[row + k] = Math.trunc(w < 0 ? w - 0.5 : w + 0.5);
    }
    for (let k = count; k < stride; k++) taps[row + k] = 0;
  }
  return stride;
}

/** One output value: integer sum of weighted bytes `step` apart, rounded to 8 bits. */
export function tapSum(
  bytes: Uint8Array,
  start: number,
  step: number,
  taps: Int32Array,
  row: number,
  count: number,
): number {
  let sum = 1 << (WEIGHT_BITS - 1);
  for (let k = 0; k < count; k++) sum += bytes[start + k * step] * taps[row + k];
  const level = sum >> WEIGHT_BITS;
  return level < 0 ? 0 : level > 255 ? 255 : level;
}

/**
 * Resamples a window of `pixels` with the taps of both axes: horizontally, to 8 bits, then vertically.
 *
 * @param start byte of the window's first pixel, `rowBytes` between its rows
 * @param rowCount rows of the window
 */
export function resampleWithTaps(
  pixels: Uint8Array,
  start: number,
  rowBytes: number,
  rowCount: number,
  taps: Int32Array,
  horizontal: { offset: number; stride: number },
  vertical: { offset: number; stride: number },
  target: Raster,
): void {
  const { height, width, data } = target;
  const middle = new Uint8Array(rowCount * width * 3);
  for (let y = 0; y < rowCount; y++) {
    for (let x = 0; x < width; x++) {
      const first = taps[horizontal.offset + TAP_HEADER * x], count = taps[horizontal.offset + TAP_HEADER * x + 1];
      const row = horizontal.offset + tapHeaderWords(width) + x * horizontal.stride;
      for (let c = 0; c < 3; c++) {
        middle[(y * width + x) * 3 + c] = tapSum(pixels, start + y * rowBytes + first * 3 + c, 3, taps, row, count);
      }
    }
  }
  const line = width * 3;
  for (let y = 0; y < height; y++) {
    const first = taps[vertical.offset + TAP_HEADER * y], count = taps[vertical.offset + TAP_HEADER * y + 1];
    const row = vertical.offset + tapHeaderWords(height) + y * vertical.stride;
    for (let i = 0; i < line; i++) data[y * line + i] = tapSum(middle, first * line + i, line, taps, row, count);
  }
}

/** The whole image at another size. `sourceEnd` is Pillow's fractional box, [0, width] × [0, height] by default. */
export function resize(
  image: Raster,
  height: number,
  width: number,
  interpolation: Interpolation,
  sourceEnd: { height: number; width: number } = image,
): Raster {
  const across = fullAxis(image.width, width, sourceEnd.width);
  const down = fullAxis(image.height, height, sourceEnd.height);
  const downOffset = tapWords(across, interpolation);
  const taps = new Int32Array(downOffset + tapWords(down, interpolation));
  const target = emptyRaster(height, width);
  const horizontal = { offset: 0, stride: writeTaps(taps, 0, across, interpolation) };
  const vertical = { offset: downOffset, stride: writeTaps(taps, downOffset, down, interpolation) };
  resampleWithTaps(image.data, 0, image.width * 3, image.height, taps, horizontal, vertical, target);
  return target;
}

function fullAxis(source: number, target: number, sourceEnd: number): Axis {
  return { source, target, windowStart: 0, windowCount: target, reversed: false, sourceEnd };
}
