// Normalisations along a row. A chunk is a range of rows.
import { laneSum, loadUpTo, storeUpTo } from "./math";
import { scratch } from "./context";
import {
  addInputGradientRow, inputGradientRow, normalizeRow, parameterGradientsRow, rowDeviations, rowTotal,
} from "./norm_rows";
import { real, word } from "./step";

/** Σ a·b. */
// @ts-ignore: decorator
@inline
function dot(a: usize, b: usize, n: u32): f32 {
  let s0 = f32x4.splat(0), s1 = s0, i: u32 = 0;
  for (; i + 8 <= n; i += 8) {
    const at = <usize>i << 2;
    s0 = f32x4.relaxed_madd(v128.load(a + at), v128.load(b + at), s0);
    s1 = f32x4.relaxed_madd(v128.load(a + at, 16), v128.load(b + at, 16), s1);
  }
  for (; i < n; i += 4) {
    const at = <usize>i << 2;
    s0 = f32x4.relaxed_madd(loadUpTo(a + at, n - i), loadUpTo(b + at, n - i), s0);
  }
  return laneSum(f32x4.add(s0, s1));
}

/** Arguments: x, weight, bias, y, stats (or 0), rows, columns, eps, rows a chunk. Scratch: 128 bytes. */
export function layerNorm(step: usize, chunk: u32): void {
  const n = word(step, 6), stride: usize = n << 2, weight: usize = word(step, 1), bias: usize = word(step, 2);
  const last = min((chunk + 1) * word(step, 8), word(step, 5)), temp = scratch + 64;
  for (let r = chunk * word(step, 8); r < last; r++) {
    const x = word(step, 0) + r * stride, stats = word(step, 4) ? word(step, 4) + (<usize>r << 3) : scratch;
    store<f32>(stats, rowTotal(x, n, temp) / <f32>n);
    store<f32>(stats, 1 / sqrt(rowDeviations(x, n, stats, temp) / <f32>n + real(step, 7)), 4);
    normalizeRow(x, stats, weight, bias, word(step, 3) + r * stride, n);
  }
}

/**
 * Arguments: dy, x, stats, weight, dx (or 0), partials (or 0), rows, columns, rows a chunk, accumulate.
 * partials [chunks, 2, columns] receive this chunk's Σ dy·x̂ and Σ dy.
 * Scratch: 192 bytes, a row of partials.
 */
export function layerNormBackward(step: usize, chunk: u32): void {
  const n = word(step, 7), stride: usize = n << 2, weight: usize = word(step, 3), accumulate = word(step, 9);
  const last = min((chunk + 1) * word(step, 8), word(step, 6)), sums = scratch, temp = scratch + 64;
  const dweight: usize = word(step, 5) ? word(step, 5) + chunk * 2 * stride : scratch + 192, dbias = dweight + stride;
  memory.fill(dweight, 0, 2 * stride);
  for (let r = chunk * word(step, 8); r < last; r++) {
    const dy = word(step, 0) + r * stride, x = word(step, 1) + r * stride, stats = word(step, 2) + (<usize>r << 3);
    parameterGradientsRow(dy, x, stats, weight, dweight, dbias, n, sums, temp);
    if (!word(step, 4)) continue;
    const dx = word(step, 4) + r * stride;
    store<f32>(sums, load<f32>(sums) / <f32>n);
    store<f32>(sums, load<f32>(sums, 4) / <f32>n, 4);
    if (accumulate) addInputGradientRow(dy, x, stats, weight, sums, dx, n);
    else inputGradientRow(dy, x, stats, weight, sums, dx, n);
  }
}

/** Arguments: x, y, norm (or 0), rows, columns, eps, rows a chunk. */
export function l2Normalize(step: usize, chunk: u32): void {
  const n = word(step, 4), stride: usize = n << 2, last = min((chunk + 1) * word(step, 6), word(step, 3));
  for (let r = chunk * word(step, 6); r < last; r++) {
    const x = word(step, 0) + r * stride, y = word(step, 1) + r * stride;
    const length = max(sqrt(dot(x, x, n)), real(step, 5));
    if (word(step, 2)) store<f32>(word(step, 2) + (<usize>r << 2), length);
    scaleRow(x, y, n, 1 / length);
  }
}

// @ts-ignore: decorator
@inline
function scaleRow(x: usize, y: usize, n: u32, factor: f32): void {
  const f = f32x4.splat(factor);
  for (let i: u32 = 0; i < n; i += 4) {
    const at = <usize>i << 2;
    storeUpTo(y + at, f32x4.mul(loadUpTo(x + at, n - i), f), n - i);
  }
}

/** Arguments: dy, y, norm, dx, rows, columns, eps, rows a chunk, accumulate. */
export function l2NormalizeBackward(step: usize, chunk: u32): void {
  const n = word(step, 5), stride: usize = n << 2, last = min((chunk + 1) * word(step, 7), word(step, 4));
  for (let r = chunk * word(step, 7); r < last; r++) {
    const dy = word(step, 0) + r * stride, y = word(step, 1) + r * stride, dx = word(step, 3) + r * stride;
    const norm = load<f32>(word(step, 2) + (<usize>r << 2));
    // Clamped rows have a constant norm.
    const along = f32x4.splat(norm <= real(step, 6) ? 0 : dot(dy, y, n)), inverse = f32x4.splat(1 / norm);
    for (let i: u32 = 0; i < n; i += 4) {
      const at = <usize>i << 2, left = n - i;
      let v = f32x4.mul(f32x4.relaxed_nmadd(loadUpTo(y + at, left), along, loadUpTo(dy + at, left)), inverse);
      if (word(step, 8)) v = f32x4.add(v, loadUpTo(dx + at, left));
      storeUpTo(dx + at, v, left);
    }
  }
}

/** Arguments: v, gain, weight, norm (or 0), rows, columns, rows a chunk. */
export function weightNorm(step: usize, chunk: u32): void {
  const n = word(step, 5), stride: usize = n << 2, last = min((chunk + 1) * word(step, 6), word(step, 4));
  for (let r = chunk * word(step, 6); r < last; r++) {
    const v = word(step, 0) + r * stride, length = sqrt(dot(v, v, n));
    if (word(step, 3)) store<f32>(word(step, 3) + (<usize>r << 2), length);
    scaleRow(v, word(step, 2) + r * stride, n, load<f32>(word(step, 1) + (<usize>r << 2)) / length);
  }
}

/** Arguments: dweight, v, gain, norm, dv (or 0), dgain (or 0), rows, columns, rows a chunk, accumulate. */
export function weightNormBackward(step: usize, chunk: u32): void {
  const n = word(step, 7), stride: usize = n << 2, accumulate = word(step, 9);
  const last = min((chunk + 1) * word(step, 8), word(step, 6));
  for (let r = chunk * word(step, 8); r < last; r++) {
    const dweight = word(step, 0) + r * stride, v = word(step, 1) + r * stride, at = <usize>r << 2;
    const inverse: f32 = 1 / load<f32>(word(step, 3) + at), along: f32 = dot(dweight, v, n) * inverse;
    if (word(step, 5)) {
      const dgain = word(step, 5) + at;
      store<f32>(dgain, accumulate ? load<f32>(dgain) + along : along);
    }
    if (!word(step, 4)) continue;
    const dv = word(step, 4) + r * stride;
    const factor = f32x4.splat(load<f32>(word(step, 2) + at) * inverse), back = f32x4.splat(along * inverse);
    for (let i: u32 = 0; i < n; i += 4) {
      const p = <usize>i << 2, left = n - i;
      let d = f32x4.mul(factor, f32x4.relaxed_nmadd(loadUpTo(v + p, left), back, loadUpTo(dweight + p, left)));
      if (accumulate) d = f32x4.add(d, loadUpTo(dv + p, left));
      storeUpTo(dv + p, d, left);
    }
  }
}
