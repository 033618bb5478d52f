// Fused attention: one chunk is one head of one image; scores exist only for a block of queries at a time, in cache.
//
// Scores lie transposed, a key a row and a query a column: softmax then needs nothing across a vector, and what multiplies the
// values reads them as they lie. Every sum runs over keys, queries or d in order, whatever the tile and the block.
import { StepField } from "../codes";
import { colsBlock, packA, packPanels, packTransposed, rowsBlock, tileBlock } from "./block";
import { gradientColumns, softmaxColumns } from "./columns";
import { constants, scratch, tileColumns, tileRows, zeros } from "./context";
import { laneMax, laneSum, loadPart, loadUpTo, log, storeUpTo } from "./math";
import { expRow, sumRow } from "./rows";
import { ceilDiv, real, word } from "./step";

// Where a step has the scale of the scores, and the factor that makes them exponents of two: scale·log₂e.
const FACTOR: usize = StepField.arguments + 8 * 4;
const BACKWARD_SCALE: usize = StepField.arguments + 10 * 4;
const BACKWARD_FACTOR: usize = StepField.arguments + 11 * 4;
const PROBS_SCALE: usize = StepField.arguments + 7 * 4;

const LOG2_E: f64 = 1.4426950408889634;

/** Rows of a that meet all panels of a block before the next rows do: they stay in L1, and are whole tiles of any shape. */
const GROUP: u32 = 60;

/** Panels of queries: panels[j / tile][c][j % tile] = source[j, c] for j < `rows`, 0 beyond, j < `columns`. */
function packQueries(source: usize, stride: usize, d: u32, rows: u32, columns: u32, panels: usize): void {
  for (let j: u32 = 0; j < columns; j += tileColumns, panels += <usize>d * (tileColumns << 2)) {
    packTransposed(source + j * stride, stride, d, j < rows ? min(tileColumns, rows - j) : 0, panels);
  }
}

/** scores [n, columns] = a·panels; a in tiles as `packA` packs them. */
function scoreKeys(n: u32, d: u32, columns: u32, tiles: usize, panels: usize, scores: usize, stride: usize): void {
  const panelBytes = <usize>d * (tileColumns << 2), aTile = <usize>d * (tileRows << 2);
  for (let r: u32 = 0; r < n; r += GROUP, tiles += <usize>GROUP * (d << 2), scores += GROUP * stride) {
    const rows = min(GROUP, n - r);
    let panel = panels;
    for (let j: u32 = 0; j < columns; j += tileColumns, panel += panelBytes) {
      tileBlock(rows, d, tiles, aTile, panel, zeros, 0, zeros, scores + (<usize>j << 2), stride);
    }
  }
}

/** c [rows, panels of n] = aᵀ·panels, a [depth, rows] row-major. */
function multiplyTransposed(
  rows: u32, depth: u32, n: u32, a: usize, aStride: usize, panels: usize, c: usize, cStride: usize,
): void {
  const panelBytes = <usize>depth * (tileColumns << 2);
  for (let j: u32 = 0; j < n; j += tileColumns, panels += panelBytes, c += tileColumns << 2) {
    colsBlock(rows, depth, a, aStride, panels, zeros, 0, zeros, c, cStride);
  }
}

/**
 * c [rows, panels of n] (+)= a·panels, a row-major. Narrow tiles want a packed (41 against 27 GFLOP/s in stock mode), for which
 * `packed` has room; wide ones gain less by it than it costs.
 */
function multiply(
  rows: u32, depth: u32, n: u32, a: usize, aStride: usize, panels: usize, c: usize, cStride: usize, first: bool, packed: usize,
): void {
  const panelBytes = <usize>depth * (tileColumns << 2), narrow = tileColumns == 8;
  const aTile = <usize>depth * (tileRows << 2);
  if (narrow) packA(a, aStride, depth, rows, packed, aTile);
  for (let j: u32 = 0; j < n; j += tileColumns, panels += panelBytes, c += tileColumns << 2) {
    const start = first ? zeros : c, startStride = first ? 0 : cStride;
    if (narrow) tileBlock(rows, depth, packed, aTile, panels, start, startStride, zeros, c, cStride);
    else rowsBlock(rows, depth, a, aStride, panels, tileColumns << 2, start, startStride, zeros, c, cStride);
  }
}

/** Elements rounded up to whole panels, and away from strides that share cache sets. */
// @ts-ignore: decorator
@inline
function padded(n: u32): u32 {
  const width = ceilDiv(n, tileColumns) * tileColumns;
  return (width & 127) == 0 ? width + tileColumns : width;
}

/** Queries rounded up to the sixteen columns that columns.ts takes at a time. */
// @ts-ignore: decorator
@inline
function wholeColumns(n: u32): u32 {
  return (n + 15) & ~15;
}

/** An odd number of cache lines: rows then spread over all cache sets. */
// @ts-ignore: decorator
@inline
function scoreStrideOf(block: u32): usize {
  return <usize>(block << 2) | 64;
}

/**
 * Arguments: qkv, y, lse (or 0), tokens, heads, queries, d, queries a block, factor.
 * Scratch: keys in tiles, values, scores of a block, queries and outputs of a block, shifts and sums.
 */
export function attention(step: usize, chunk: u32): void {
  const N = word(step, 3), heads = word(step, 4), queries = word(step, 5), d = word(step, 6), block = word(step, 7);
  const image = chunk / heads, head = chunk - image * heads;
  const D = heads * d, stride = <usize>D * 12;
  const q = word(step, 0) + <usize>image * N * stride + <usize>head * (d << 2);
  const dWidth = padded(d), scoreStride = scoreStrideOf(block), dStride: usize = dWidth << 2;
  const keys = scratch, values = keys + <usize>N * (d << 2), scores = values + dStride * N;
  const panels = scores + scoreStride * N, out = panels + <usize>block * (d << 2), shifts = out + dStride * block;
  const sums = shifts + <usize>(block << 2);
  packA(q + (<usize>D << 2), stride, d, N, keys, <usize>d * (tileRows << 2));
  packPanels(q + (<usize>D << 3), stride, N, d, values);
  for (let first: u32 = 0; first < queries; first += block) {
    const rows = min(block, queries - first), columns = wholeColumns(rows);
    packQueries(q + first * stride, stride, d, rows, columns, panels);
    scoreKeys(N, d, columns, keys, panels, scores, scoreStride);
    for (let j: u32 = 0; j < columns; j += 16) {
      const at = <usize>j << 2;
      softmaxColumns(scores + at, scoreStride, N, step + FACTOR, shifts + at, sums + at, constants);
    }
    multiplyTransposed(rows, N, d, scores, scoreStride, values, out, dStride);
    const y = word(step, 1) + ((<usize>(image * queries + first) * D + head * d) << 2);
    const lse: usize = word(step, 2) ? word(step, 2) + (<usize>(chunk * queries + first) << 2) : 0;
    for (let r: u32 = 0; r < rows; r++) {
      const sum = load<f32>(sums + (<usize>r << 2)), inverse = f32x4.splat(1 / sum);
      const from = out + r * dStride, to = y + <usize>r * (D << 2);
      for (let c: u32 = 0; c < d; c += 4) {
        storeUpTo(to + (<usize>c << 2), f32x4.mul(v128.load(from + (<usize>c << 2)), inverse), d - c);
      }
      // Shifts are negated exponents of two.
      if (lse) store<f32>(lse + (<usize>r << 2), <f32>(log(<f64>sum) - <f64>load<f32>(shifts + (<usize>r << 2)) / LOG2_E));
    }
  }
}

/**
 * Arguments: dy, qkv, y, lse, dqkv, tokens, heads, queries, d, queries a block, scale, factor.
 * Scratch: keys and values in tiles, keys by panels of d, P and dS of a block, dk, dv, q and dy of a block in panels of queries,
 * then of d, dq, packed rows, shifts and deltas.
 */
export function attentionBackward(step: usize, chunk: u32): void {
  const N = word(step, 5), heads = word(step, 6), queries = word(step, 7), d = word(step, 8), block = word(step, 9);
  const image = chunk / heads, head = chunk - image * heads;
  const D = heads * d, stride = <usize>D * 12, yStride = <usize>D << 2;
  const offset = <usize>image * N * stride + <usize>head * (d << 2);
  const q = word(step, 1) + offset, dq = word(step, 4) + offset;
  const k = q + (<usize>D << 2), v = q + (<usize>D << 3);
  const yOffset = (<usize>image * queries * D + head * d) << 2;
  const dy = word(step, 0) + yOffset, y = word(step, 2) + yOffset;
  const lse = word(step, 3) + (<usize>chunk * queries << 2);

  const dWidth = padded(d), scoreStride = scoreStrideOf(block), dStride: usize = dWidth << 2;
  const keys = scratch, values = keys + <usize>N * (d << 2), keyRows = values + <usize>N * (d << 2);
  const probabilities = keyRows + dStride * N, dScores = probabilities + scoreStride * N;
  const dk = dScores + scoreStride * N, dv = dk + dStride * N;
  // Queries and gradients lie in panels of queries first, then, once the scores are there, in panels of d.
  const qPanels = dv + dStride * N, dyPanels = qPanels + dStride * block, out = dyPanels + dStride * block;
  const shifts = out + dStride * block, deltas = shifts + <usize>(block << 2), packed = deltas + <usize>(block << 2);
  const aTile = <usize>d * (tileRows << 2);
  packA(k, stride, d, N, keys, aTile);
  packA(v, stride, d, N, values, aTile);
  packPanels(k, stride, N, d, keyRows);
  for (let first: u32 = 0; first < queries; first += block) {
    const rows = min(block, queries - first), columns = wholeColumns(rows);
    packQueries(q + first * stride, stride, d, rows, columns, qPanels);
    packQueries(dy + first * yStride, yStride, d, rows, columns, dyPanels);
    scoreKeys(N, d, columns, keys, qPanels, probabilities, scoreStride);
    scoreKeys(N, d, columns, values, dyPanels, dScores, scoreStride);
    for (let r: u32 = 0; r < columns; r++) {
      const inside = r < rows, at = <usize>r << 2, row = (first + r) * yStride;
      store<f32>(shifts + at, inside ? <f32>(-LOG2_E * <f64>load<f32>(lse + (<usize>(first + r) << 2))) : 0);
      store<f32>(deltas + at, inside ? rowDot(dy + row, y + row, d) : 0);
    }
    for (let j: u32 = 0; j < columns; j += 16) {
      const at = <usize>j << 2;
      gradientColumns(
        probabilities + at, dScores + at, scoreStride, N, step + BACKWARD_FACTOR, step + BACKWARD_SCALE, shifts + at,
        deltas + at, constants,
      );
    }
    packPanels(q + first * stride, stride, rows, d, qPanels);
    packPanels(dy + first * yStride, yStride, rows, d, dyPanels);
    multiply(N, rows, d, probabilities, scoreStride, dyPanels, dv, dStride, first == 0, packed);
    multiply(N, rows, d, dScores, scoreStride, qPanels, dk, dStride, first == 0, packed);
    multiplyTransposed(rows, N, d, dScores, scoreStride, keyRows, out, dStride);
    copyRows(out, dStride, dq + first * stride, stride, rows, d);
  }
  for (let r = queries; r < N; r++) memory.fill(dq + r * stride, 0, d << 2);
  copyRows(dk, dStride, dq + (<usize>D << 2), stride, N, d);
  copyRows(dv, dStride, dq + (<usize>D << 3), stride, N, d);
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
