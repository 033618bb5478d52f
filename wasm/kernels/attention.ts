// Fused attention: one chunk is one head of one image; scores exist only for a block of queries at a time, in cache.
import { StepField } from "../codes";
import { colsBlock, packA, packPanel, packTransposed, rowsBlock, tileBlock } from "./block";
import { constants, scratch, tileColumns, tileRows, zeros } from "./context";
import { laneMax, laneSum, loadPart, loadUpTo, log, storeUpTo } from "./math";
import { expRow, sumRow } from "./rows";
import { ceilDiv, real, word } from "./step";

// Where the scale of the scores lies in a step.
const SCALE: usize = StepField.arguments + 8 * 4;
const BACKWARD_SCALE: usize = StepField.arguments + 10 * 4;
const PROBS_SCALE: usize = StepField.arguments + 7 * 4;

/** Panels of k-major columns: panels[j / tile][k][j % tile] = source[j, k] for `rows` rows of `depth` elements. */
function packKeys(source: usize, stride: usize, depth: u32, rows: u32, panels: usize): void {
  for (let j: u32 = 0; j < rows; j += tileColumns) {
    packTransposed(source + j * stride, stride, depth, min(tileColumns, rows - j), panels);
    panels += <usize>depth * (tileColumns << 2);
  }
}

/** Panels of a row-major source [depth, columns]. */
function packValues(source: usize, stride: usize, depth: u32, columns: u32, panels: usize): void {
  for (let j: u32 = 0; j < columns; j += tileColumns) {
    packPanel(source + (<usize>j << 2), stride, depth, columns - j, panels);
    panels += <usize>depth * (tileColumns << 2);
  }
}

/**
 * c [rows, panels of n] = a·panels, a row-major. Narrow tiles want a packed (41 against 27 GFLOP/s in stock mode), for which
 * `packed` has room; wide ones gain less by it than it costs.
 */
function multiply(
  rows: u32, depth: u32, n: u32, a: usize, aStride: usize, panels: usize, c: usize, cStride: usize, packed: usize,
): void {
  const panelBytes = <usize>depth * (tileColumns << 2), narrow = tileColumns == 8;
  const aTile = <usize>depth * (tileRows << 2);
  if (narrow) packA(a, aStride, depth, rows, packed, aTile);
  for (let j: u32 = 0; j < n; j += tileColumns, panels += panelBytes, c += tileColumns << 2) {
    if (narrow) tileBlock(rows, depth, packed, aTile, panels, zeros, 0, zeros, c, cStride);
    else rowsBlock(rows, depth, a, aStride, panels, tileColumns << 2, zeros, 0, zeros, c, cStride);
  }
}

/** c [rows, panels of n] += aᵀ·panels, a [depth, rows] row-major. */
function multiplyTransposed(
  rows: u32, depth: u32, n: u32, a: usize, aStride: usize, panels: usize, c: usize, cStride: usize,
): void {
  const panelBytes = <usize>depth * (tileColumns << 2);
  for (let j: u32 = 0; j < n; j += tileColumns, panels += panelBytes, c += tileColumns << 2) {
    colsBlock(rows, depth, a, aStride, panels, c, cStride, zeros, c, cStride);
  }
}

/** Elements rounded up to whole panels, and away from strides that share cache sets. */
// @ts-ignore: decorator
@inline
function padded(n: u32): u32 {
  const width = ceilDiv(n, tileColumns) * tileColumns;
  return (width & 127) == 0 ? width + tileColumns : width;
}

/** Rows of scores are padded: whole vectors are faster than a ragged end, and what they hold beyond n is never read. */
// @ts-ignore: decorator
@inline
function wholeVectors(n: u32): u32 {
  return (n + 7) & ~7;
}

/** row ← e^(scale·row − shift), both read from memory; what lies beyond n is left alone. Returns the sum of the results. */
// @ts-ignore: decorator
@inline
function exponentials(row: usize, n: u32, scale: usize, shift: usize): f32 {
  expRow(row, row, wholeVectors(n), scale, shift, constants);
  return sumRow(row, n);
}

/** Largest element. NaN may get lost here, but not in the exponentials. */
function largest(row: usize, n: u32): f32 {
  let m0 = v128.load32_splat(row), m1 = m0, j = n;
  const first = load<f32>(row);
  for (; j >= 8; j -= 8, row += 32) {
    m0 = f32x4.pmax(m0, v128.load(row));
    m1 = f32x4.pmax(m1, v128.load(row, 16));
  }
  for (; j >= 4; j -= 4, row += 16) m0 = f32x4.pmax(m0, v128.load(row));
  if (j) m1 = f32x4.pmax(m1, loadPart(row, j, first));
  return laneMax(f32x4.pmax(m0, m1));
}

/**
 * Arguments: qkv, y, lse (or 0), tokens, heads, queries, d, queries a block, scale.
 * Scratch: keys, values, scores of a block, output of a block, row sums, packed rows of a block.
 */
export function attention(step: usize, chunk: u32): void {
  const N = word(step, 3), heads = word(step, 4), queries = word(step, 5), d = word(step, 6), block = word(step, 7);
  const image = chunk / heads, head = chunk - image * heads;
  const D = heads * d, stride = <usize>D * 12;
  const q = word(step, 0) + <usize>image * N * stride + <usize>head * (d << 2);
  const width = padded(N), dWidth = padded(d);
  const keys = scratch, values = keys + <usize>width * (d << 2), scores = values + <usize>dWidth * (N << 2);
  const out = scores + <usize>width * (block << 2), sums = out + <usize>dWidth * (block << 2);
  const packed = sums + (block << 2) + 64;
  packKeys(q + (<usize>D << 2), stride, d, N, keys);
  packValues(q + (<usize>D << 3), stride, N, d, values);
  for (let first: u32 = 0; first < queries; first += block) {
    const rows = min(block, queries - first);
    multiply(rows, d, N, q + first * stride, stride, keys, scores, width << 2, packed);
    const lse: usize = word(step, 2) ? word(step, 2) + (<usize>(chunk * queries + first) << 2) : 0;
    softmaxRows(rows, N, step + SCALE, scores, width << 2, sums, lse);
    multiply(rows, N, d, scores, width << 2, values, out, dWidth << 2, packed);
    const y = word(step, 1) + ((<usize>(image * queries + first) * D + head * d) << 2);
    for (let r: u32 = 0; r < rows; r++) {
      const inverse = f32x4.splat(1 / load<f32>(sums + (<usize>r << 2)));
      const from = out + <usize>r * (dWidth << 2), to = y + <usize>r * (D << 2);
      for (let c: u32 = 0; c < d; c += 4) {
        storeUpTo(to + (<usize>c << 2), f32x4.mul(v128.load(from + (<usize>c << 2)), inverse), d - c);
      }
    }
  }
}

/** Rows become e^(scale·row − max), their sums go to `sums`, log-sum-exp to `lse` unless 0. */
function softmaxRows(rows: u32, N: u32, scale: usize, scores: usize, stride: usize, sums: usize, lse: usize): void {
  for (let r: u32 = 0; r < rows; r++, scores += stride) {
    const shift = largest(scores, N) * load<f32>(scale), slot = sums + (<usize>r << 2);
    store<f32>(slot, shift);
    const sum = exponentials(scores, N, scale, slot);
    store<f32>(slot, sum);
    if (lse) store<f32>(lse + (<usize>r << 2), <f32>(<f64>shift + log(<f64>sum)));
  }
}

/**
 * Arguments: dy, qkv, y, lse, dqkv, tokens, heads, queries, d, queries a block, scale.
 * Scratch: keys and values by panels of tokens, keys by panels of d, P and dS of a block, dk, dv, panels of q and dy, dq,
 * packed rows of a block.
 */
export function attentionBackward(step: usize, chunk: u32): void {
  const N = word(step, 5), heads = word(step, 6), queries = word(step, 7), d = word(step, 8), block = word(step, 9);
  const scale = real(step, 10), image = chunk / heads, head = chunk - image * heads;
  const D = heads * d, stride = <usize>D * 12, yStride = <usize>D << 2;
  const offset = <usize>image * N * stride + <usize>head * (d << 2);
  const q = word(step, 1) + offset, dq = word(step, 4) + offset;
  const k = q + (<usize>D << 2), v = q + (<usize>D << 3);
  const yOffset = (<usize>image * queries * D + head * d) << 2;
  const dy = word(step, 0) + yOffset, y = word(step, 2) + yOffset;
  const lse = word(step, 3) + (<usize>chunk * queries << 2);

  const width = padded(N), dWidth = padded(d), scoreStride: usize = width << 2, dStride: usize = dWidth << 2;
  const keys = scratch, values = keys + <usize>width * (d << 2), keyRows = values + <usize>width * (d << 2);
  const probabilities = keyRows + dStride * N, dScores = probabilities + scoreStride * block;
  const dk = dScores + scoreStride * block, dv = dk + dStride * N;
  const qPanels = dv + dStride * N, dyPanels = qPanels + dStride * block, out = dyPanels + dStride * block;
  const packed = out + dStride * block;
  packKeys(k, stride, d, N, keys);
  packKeys(v, stride, d, N, values);
  packValues(k, stride, N, d, keyRows);
  memory.fill(dk, 0, 2 * dStride * N);
  for (let first: u32 = 0; first < queries; first += block) {
    const rows = min(block, queries - first);
    multiply(rows, d, N, q + first * stride, stride, keys, probabilities, scoreStride, packed);
    multiply(rows, d, N, dy + first * yStride, yStride, values, dScores, scoreStride, packed);
    for (let r: u32 = 0; r < rows; r++) {
      const at = first + r, row = <usize>r * scoreStride;
      expRow(probabilities + row, probabilities + row, wholeVectors(N), step + BACKWARD_SCALE, lse + (<usize>at << 2), constants);
      scoreGradients(
        probabilities + row, dScores + row, N, rowDot(dy + at * yStride, y + at * yStride, d), scale,
      );
    }
    packValues(q + first * stride, stride, rows, d, qPanels);
    packValues(dy + first * yStride, yStride, rows, d, dyPanels);
    multiplyTransposed(N, rows, d, probabilities, scoreStride, dyPanels, dv, dStride);
    multiplyTransposed(N, rows, d, dScores, scoreStride, qPanels, dk, dStride);
    multiply(rows, N, d, dScores, scoreStride, keyRows, out, dStride, packed);
    copyRows(out, dStride, dq + first * stride, stride, rows, d);
  }
  for (let r = queries; r < N; r++) memory.fill(dq + r * stride, 0, d << 2);
  copyRows(dk, dStride, dq + (<usize>D << 2), stride, N, d);
  copyRows(dv, dStride, dq + (<usize>D << 3), stride, N, d);
}

/** dScores ← P∘(dScores − δ)·scale. */
function scoreGradients(p: usize, ds: usize, n: u32, delta: f32, scale: f32): void {
  const shift = f32x4.splat(delta), factor = f32x4.splat(scale);
  // Rows are padded to whole vectors; what the padding holds is never read.
  for (let j: u32 = 0; j < n; j += 8) {
    const at = <usize>j << 2;
    const v0 = f32x4.mul(f32x4.mul(v128.load(p + at), factor), f32x4.sub(v128.load(ds + at), shift));
    const v1 = f32x4.mul(f32x4.mul(v128.load(p + at, 16), factor), f32x4.sub(v128.load(ds + at, 16), shift));
    v128.store(ds + at, v0);
    v128.store(ds + at, v1, 16);
  }
}

function rowDot(a: usize, b: usize, n: u32): f32 {
  let s = f32x4.splat(0);
  for (let i: u32 = 0; i < n; i += 4) {
    const at = <usize>i << 2;
    s = f32x4.relaxed_madd(loadUpTo(a + at, n - i), loadUpTo(b + at, n - i), s);
  }
  return laneSum(s);
}

function copyRows(source: usize, sourceStride: usize, target: usize, targetStride: usize, rows: u32, n: u32): void {
  for (; rows; rows--, source += sourceStride, target += targetStride) {
    for (let c: u32 = 0; c < n; c += 4) storeUpTo(target + (<usize>c << 2), v128.load(source + (<usize>c << 2)), n - c);
  }
}

/** Softmaxed scores of one query, plainly: for looking at. Arguments: qkv, probs, tokens, heads, queries, d, firstQuery, scale. */
export function attentionProbs(step: usize, chunk: u32): void {
  const N = word(step, 2), heads = word(step, 3), queries = word(step, 4), d = word(step, 5), D = heads * d;
  const group = chunk / queries, query = chunk - group * queries + word(step, 6);
  const image = group / heads, head = group - image * heads, stride = <usize>D * 12;
  const base = word(step, 0) + <usize>image * N * stride + <usize>head * (d << 2);
  const q = base + query * stride, probs = word(step, 1) + <usize>chunk * (N << 2);
  for (let j: u32 = 0; j < N; j++) store<f32>(probs + (<usize>j << 2), rowDot(q, base + (<usize>D << 2) + j * stride, d));
  const shift = scratch;
  store<f32>(shift, largest(probs, N) * real(step, 7));
  expRow(probs, probs, N, step + PROBS_SCALE, shift, constants);
  const sum = sumRow(probs, N);
  const inverse = f32x4.splat(1 / sum);
  for (let j: u32 = 0; j < N; j += 4) {
    const p = probs + (<usize>j << 2);
    storeUpTo(p, f32x4.mul(loadUpTo(p, N - j), inverse), N - j);
  }
}
