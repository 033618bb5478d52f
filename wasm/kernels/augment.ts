// One augmented crop from 8-bit pixels, bit for bit what Pillow computes: resize, colours, blur, store.
// A pixel between the stages is a u32, R | G·2⁸ | B·2¹⁶, in the thread's own scratch.
import { colorRange } from "./augment_color";
import { boxBlur } from "./augment_blur";
import { scratch } from "./context";
import { word } from "./step";

// Bytes of a crop's record and of its fields: 4 × RECORD in models/image/crop.ts.
// @ts-ignore: decorator
@inline const RECORD_BYTES: usize = 128;

/**
 * One crop a chunk: pixels u8, table i32 [count, 32], taps i32, levels f32 [3, 256] → its part of crops, as the
 * operation "augment" says; arguments pixels, table, taps, levels, crops, height, width, maxTaps, patch.
 *
 * patch 0 stores plain levels as f32 [height, width, 3]. Scratch: the packed image, then whatever a stage needs,
 * max(4·maxTaps·width, 32·max(height, width), 3072) bytes.
 */
export function augment(step: usize, chunk: u32): void {
  const record = <usize>word(step, 1) + chunk * RECORD_BYTES;
  const height = <i32>word(step, 5), width = <i32>word(step, 6), ringRows = <i32>word(step, 7), patch = <i32>word(step, 8);
  const image = scratch, count = height * width;
  const work = image + (<usize>(count + 3 & ~3) << 2);
  resample(word(step, 0), record, word(step, 2), image, work, height, width, ringRows);

  const adjustments = load<i32>(record, 28), contrastAt = load<i32>(record, 32);
  if (adjustments > 0) {
    const sum = colorRange(image, count, record, 0, contrastAt, 0, work); // even of none: contrast needs the sum
    if (contrastAt < adjustments) {
      const mean = <i32>((sum + (<u32>count >> 1)) / <u32>count); // ⌊sum/count + ½⌋
      colorRange(image, count, record, contrastAt, adjustments, mean, work);
    }
  }
  if (load<i32>(record, 76)) {
    boxBlur(image, height, width, load<i32>(record, 80), load<u32>(record, 84), load<u32>(record, 88), work);
  }
  const threshold = load<i32>(record, 92);
  if (patch == 0) {
    storeLevels(image, <usize>word(step, 4) + (<usize>chunk * (count * 3) << 2), count, threshold);
  } else {
    const values = (height / patch) * (width / patch) * 3 * patch * patch;
    const target = <usize>word(step, 4) + (<usize>chunk * values << 2);
    storePatches(image, target, height, width, patch, solarizedLevels(word(step, 3), threshold, work));
  }
}

// ---- resize: horizontally into a ring of rows, vertically out of it ----------------------------------------

function resample(
  pixels: usize,
  record: usize,
  taps: usize,
  image: usize,
  ring: usize,
  height: i32,
  width: i32,
  ringRows: i32,
): void {
  const source = pixels + <usize>load<i32>(record);
  const rowBytes = load<i32>(record, 4);
  const boxRows = load<i32>(record, 8);
  const across = taps + (<usize>load<i32>(record, 12) << 2);
  const acrossStride = load<i32>(record, 16);
  const down = taps + (<usize>load<i32>(record, 20) << 2);
  const downStride = load<i32>(record, 24);
  const weights = rowsOfWeights(down, height);
  const line = <usize>width << 2;
  let ready = 0; // source rows below this one are in the ring, or no longer needed
  for (let y = 0; y < height; y++) {
    const start = load<i32>(down + (<usize>y << 3)), count = load<i32>(down + (<usize>y << 3), 4);
    if (ready < start) ready = start;
    const end = min(start + count, boxRows);
    while (ready < end) {
      const into = ring + <usize>(ready % ringRows) * line;
      resampleRow(source + <usize>ready * rowBytes, into, across, acrossStride, width);
      ready++;
    }
    const row = weights + (<usize>(y * downStride) << 2);
    resampleColumns(ring, image + <usize>y * line, start % ringRows, count, ringRows, row, width);
  }
}

// Behind two words for each sample, at a multiple of four words.
// @ts-ignore: decorator
@inline
function rowsOfWeights(axis: usize, count: i32): usize {
  return axis + (<usize>(2 * count + 3 & ~3) << 2);
}

// @ts-ignore: decorator
@inline
function pixelLanes(bytes: v128): v128 {
  return i32x4.extend_low_i16x8_u(i16x8.extend_low_i8x16_u(bytes));
}

// @ts-ignore: decorator
@inline
function roundedBytes(sums: v128): v128 {
  const shifted = i32x4.shr_s(sums, 22);
  const halves = i16x8.narrow_i32x4_s(shifted, shifted);
  return i8x16.narrow_i16x8_u(halves, halves);
}

// out[x] = (2²¹ + Σ_k weight[x, k]·source[start[x] + k]) >> 22 for the three channels, clamped to a byte.
function resampleRow(source: usize, target: usize, taps: usize, stride: i32, width: i32): void {
  const weights = rowsOfWeights(taps, width);
  const half = i32x4.splat(1 << 21);
  // Spread 4 pixels of 3 bytes to 32-bit lanes; −1 reads as zero.
  const spread0 = i8x16(0, -1, -1, -1, 1, -1, -1, -1, 2, -1, -1, -1, -1, -1, -1, -1);
  const spread1 = i8x16(3, -1, -1, -1, 4, -1, -1, -1, 5, -1, -1, -1, -1, -1, -1, -1);
  const spread2 = i8x16(6, -1, -1, -1, 7, -1, -1, -1, 8, -1, -1, -1, -1, -1, -1, -1);
  const spread3 = i8x16(9, -1, -1, -1, 10, -1, -1, -1, 11, -1, -1, -1, -1, -1, -1, -1);
  for (let x = 0; x < width; x++) {
    let from = source + <usize>(load<i32>(taps + (<usize>x << 3)) * 3);
    const count = load<i32>(taps + (<usize>x << 3), 4);
    let weight = weights + (<usize>(x * stride) << 2);
    let sum0 = half, sum1 = i32x4.splat(0);
    let k = 0;
    for (; k + 4 <= count; k += 4) {
      const bytes = v128.load(from); // the pixel buffer ends with 16 bytes of padding
      sum0 = i32x4.add(sum0, i32x4.mul(i8x16.swizzle(bytes, spread0), v128.load32_splat(weight)));
      sum1 = i32x4.add(sum1, i32x4.mul(i8x16.swizzle(bytes, spread1), v128.load32_splat(weight, 4)));
      sum0 = i32x4.add(sum0, i32x4.mul(i8x16.swizzle(bytes, spread2), v128.load32_splat(weight, 8)));
      sum1 = i32x4.add(sum1, i32x4.mul(i8x16.swizzle(bytes, spread3), v128.load32_splat(weight, 12)));
      from += 12;
      weight += 16;
    }
    for (; k < count; k++) {
      const bytes = i8x16.swizzle(v128.load32_zero(from), spread0);
      sum0 = i32x4.add(sum0, i32x4.mul(bytes, v128.load32_splat(weight)));
      from += 3;
      weight += 4;
    }
    v128.store_lane<u32>(target + (<usize>x << 2), roundedBytes(i32x4.add(sum0, sum1)), 0);
  }
}

// out[x] = (2²¹ + Σ_k weight[k]·ring[(start + k) mod ringRows, x]) >> 22, clamped to a byte.
function resampleColumns(
  ring: usize,
  target: usize,
  start: i32,
  count: i32,
  ringRows: i32,
  weights: usize,
  width: i32,
): void {
  const half = i32x4.splat(1 << 21);
  const line = <usize>width << 2;
  const end = ring + <usize>ringRows * line;
  let x = 0;
  for (; x + 4 <= width; x += 4) {
    let sum0 = half, sum1 = half, sum2 = half, sum3 = half;
    const column = <usize>x << 2;
    let from = ring + <usize>start * line;
    for (let k = 0; k < count; k++) {
      const bytes = v128.load(from + column);
      const low = i16x8.extend_low_i8x16_u(bytes), high = i16x8.extend_high_i8x16_u(bytes);
      const weight = v128.load32_splat(weights + (<usize>k << 2));
      sum0 = i32x4.add(sum0, i32x4.mul(i32x4.extend_low_i16x8_u(low), weight));
      sum1 = i32x4.add(sum1, i32x4.mul(i32x4.extend_high_i16x8_u(low), weight));
      sum2 = i32x4.add(sum2, i32x4.mul(i32x4.extend_low_i16x8_u(high), weight));
      sum3 = i32x4.add(sum3, i32x4.mul(i32x4.extend_high_i16x8_u(high), weight));
      from += line;
      if (from == end) from = ring;
    }
    const low = i16x8.narrow_i32x4_s(i32x4.shr_s(sum0, 22), i32x4.shr_s(sum1, 22));
    const high = i16x8.narrow_i32x4_s(i32x4.shr_s(sum2, 22), i32x4.shr_s(sum3, 22));
    v128.store(target + column, i8x16.narrow_i16x8_u(low, high));
  }
  for (; x < width; x++) {
    let sum = half;
    const column = <usize>x << 2;
    let from = ring + <usize>start * line;
    for (let k = 0; k < count; k++) {
      const weight = v128.load32_splat(weights + (<usize>k << 2));
      sum = i32x4.add(sum, i32x4.mul(pixelLanes(v128.load32_zero(from + column)), weight));
      from += line;
      if (from == end) from = ring;
    }
    v128.store_lane<u32>(target + column, roundedBytes(sum), 0);
  }
}

// ---- store -------------------------------------------------------------------------------------------------

/** levels with the inversion of solarize folded in: what a level v becomes is at index v. */
function solarizedLevels(levels: usize, threshold: i32, work: usize): usize {
  if (threshold > 255) return levels;
  for (let c = 0; c < 3; c++) {
    for (let v = 0; v < 256; v++) {
      const from = v < threshold ? v : 255 - v;
      store<f32>(work + (<usize>(c * 256 + v) << 2), load<f32>(levels + (<usize>(c * 256 + from) << 2)));
    }
  }
  return work;
}

// target[cell, c, ky, kx] = levels[c, byte c of image[cellY·p + ky, cellX·p + kx]]
function storePatches(image: usize, target: usize, height: i32, width: i32, p: i32, levels: usize): void {
  const gridHeight = height / p, gridWidth = width / p;
  const area = <usize>(p * p) << 2;
  for (let y = 0; y < gridHeight * p; y++) {
    let from = image + (<usize>(y * width) << 2);
    let into = target + ((<usize>((y / p) * gridWidth * 3 * p * p) + <usize>((y % p) * p)) << 2);
    for (let cell = 0; cell < gridWidth; cell++) {
      for (let x = 0; x < p; x++) {
        const pixel = load<u32>(from);
        from += 4;
        const at = into + (<usize>x << 2);
        store<f32>(at, load<f32>(levels + ((pixel & 255) << 2)));
        store<f32>(at + area, load<f32>(levels + ((pixel >> 8 & 255) << 2), 1024));
        store<f32>(at + 2 * area, load<f32>(levels + ((pixel >> 16 & 255) << 2), 2048));
      }
      into += 3 * area;
    }
  }
}

function storeLevels(image: usize, target: usize, count: i32, threshold: i32): void {
  for (let i = 0; i < count; i++) {
    const pixel = load<u32>(image + (<usize>i << 2));
    for (let c = 0; c < 3; c++) {
      const v = <i32>(pixel >> (8 * c) & 255);
      const solarized: i32 = v < threshold ? v : 255 - v;
      store<f32>(target + (<usize>(i * 3 + c) << 2), <f32>solarized);
    }
  }
}
