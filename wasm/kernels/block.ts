// Blocks of a matrix product in the tile shape chosen at start-up, and the packing that feeds them.
import { colsBlock16, colsBlock8, rowsBlock16, rowsBlock8, tileBlock16, tileBlock8 } from "./micro";
import { tileColumns, tileRows } from "./context";

/**
 * c[r, 0 … columns of a tile] = start + bias + Σₖ a(r, k)·b(k, :) for `rows` rows of a row-major a; see micro_kernels.ts.
 * All strides in bytes.
 */
export function rowsBlock(
  rows: u32, depth: u32, a: usize, aStride: usize, b: usize, bStride: usize,
  start: usize, startStride: usize, bias: usize, c: usize, cStride: usize,
): void {
  if (tileColumns == 16) rowsBlock16(rows, tileRows, depth, a, aStride, b, bStride, start, startStride, bias, c, cStride);
  else rowsBlock8(rows, tileRows, depth, a, aStride, b, bStride, start, startStride, bias, c, cStride);
}

/** The same for a k-major a and a panel b. */
export function colsBlock(
  rows: u32, depth: u32, a: usize, aStride: usize, b: usize,
  start: usize, startStride: usize, bias: usize, c: usize, cStride: usize,
): void {
  const aTile: usize = tileRows << 2;
  if (tileColumns == 16) colsBlock16(rows, tileRows, depth, a, aStride, aTile, b, start, startStride, bias, c, cStride);
  else colsBlock8(rows, tileRows, depth, a, aStride, aTile, b, start, startStride, bias, c, cStride);
}

/** The same for tiles of a as `packA` packs them, every `aTile` bytes, and a panel b. */
export function tileBlock(
  rows: u32, depth: u32, a: usize, aTile: usize, b: usize,
  start: usize, startStride: usize, bias: usize, c: usize, cStride: usize,
): void {
  if (tileColumns == 16) tileBlock16(rows, tileRows, depth, a, aTile, b, start, startStride, bias, c, cStride);
  else tileBlock8(rows, tileRows, depth, a, aTile, b, start, startStride, bias, c, cStride);
}

/**
 * One panel of b from rows of a row-major source: panel[k, j] = source[k, j] for j < `valid`, 0 beyond, j < tileColumns.
 */
export function packPanel(source: usize, stride: usize, depth: u32, valid: u32, panel: usize): void {
  const width: usize = tileColumns << 2;
  if (valid >= tileColumns) {
    if (width == 64) {
      for (; depth; depth--, source += stride, panel += 64) {
        const v0 = v128.load(source), v1 = v128.load(source, 16), v2 = v128.load(source, 32), v3 = v128.load(source, 48);
        v128.store(panel, v0);
        v128.store(panel, v1, 16);
        v128.store(panel, v2, 32);
        v128.store(panel, v3, 48);
      }
    } else {
      for (; depth; depth--, source += stride, panel += 32) {
        const v0 = v128.load(source), v1 = v128.load(source, 16);
        v128.store(panel, v0);
        v128.store(panel, v1, 16);
      }
    }
    return;
  }
  for (; depth; depth--, source += stride, panel += width) {
    for (let j: u32 = 0; j < tileColumns; j++) {
      store<f32>(panel + (j << 2), j < valid ? load<f32>(source + (j << 2)) : 0);
    }
  }
}

/** Panels of b that are packed at a time. */
export const PANELS_AT_ONCE: u32 = 4;

/** Consecutive panels of b, `columns` in all, from rows of a row-major source; all at a time, so that lines are read once. */
export function packPanels(source: usize, stride: usize, depth: u32, columns: u32, panel: usize): void {
  const panelBytes = <usize>depth * (tileColumns << 2);
  if (tileColumns == 16 && columns == 64) {
    const p1 = panel + panelBytes, p2 = p1 + panelBytes, p3 = p2 + panelBytes;
    for (let k: usize = 0; k < panelBytes; k += 64, source += stride) {
      copy64(source, panel + k);
      copy64(source + 64, p1 + k);
      copy64(source + 128, p2 + k);
      copy64(source + 192, p3 + k);
    }
    return;
  }
  for (let j: u32 = 0; j < columns; j += tileColumns, source += tileColumns << 2, panel += panelBytes) {
    packPanel(source, stride, depth, columns - j, panel);
  }
}

// @ts-ignore: decorator
@inline
function copy64(from: usize, to: usize): void {
  const v0 = v128.load(from), v1 = v128.load(from, 16), v2 = v128.load(from, 32), v3 = v128.load(from, 48);
  v128.store(to, v0);
  v128.store(to, v1, 16);
  v128.store(to, v2, 32);
  v128.store(to, v3, 48);
}

/** Transposes a 4×4 block: rows of `source` become columns of `target`. */
// @ts-ignore: decorator
@inline
function transpose4(source: usize, stride: usize, target: usize, targetStride: usize): void {
  const r0 = v128.load(source), r1 = v128.load(source + stride);
  const r2 = v128.load(source + 2 * stride), r3 = v128.load(source + 3 * stride);
  const a = v128.shuffle<f32>(r0, r1, 0, 4, 1, 5), b = v128.shuffle<f32>(r2, r3, 0, 4, 1, 5);
  const c = v128.shuffle<f32>(r0, r1, 2, 6, 3, 7), d = v128.shuffle<f32>(r2, r3, 2, 6, 3, 7);
  v128.store(target, v128.shuffle<f64>(a, b, 0, 2));
  v128.store(target + targetStride, v128.shuffle<f64>(a, b, 1, 3));
  v128.store(target + 2 * targetStride, v128.shuffle<f64>(c, d, 0, 2));
  v128.store(target + 3 * targetStride, v128.shuffle<f64>(c, d, 1, 3));
}

/** Steps of k in which panels are transposed: what they write stays in L1. */
const STRIP: u32 = 64;

/**
 * One panel of a transposed b: panel[k, j] = source[j, k] for j < `valid`, 0 beyond, j < tileColumns.
 */
export function packTransposed(source: usize, stride: usize, depth: u32, valid: u32, panel: usize): void {
  const width: usize = tileColumns << 2;
  for (let left = depth; left;) {
    const strip = min(left, STRIP);
    let r: u32 = 0;
    for (; r + 4 <= valid; r += 4) {
      let from = source + <usize>r * stride, to = panel + (<usize>r << 2), k = strip;
      for (; k >= 4; k -= 4, from += 16, to += 4 * width) transpose4(from, stride, to, width);
      for (; k; k--, from += 4, to += width) {
        store<f32>(to, load<f32>(from));
        store<f32>(to, load<f32>(from + stride), 4);
        store<f32>(to, load<f32>(from + 2 * stride), 8);
        store<f32>(to, load<f32>(from + 3 * stride), 12);
      }
    }
    for (; r < tileColumns; r++) {
      let from = source + <usize>r * stride, to = panel + (<usize>r << 2);
      if (r < valid) for (let k = strip; k; k--, from += 4, to += width) store<f32>(to, load<f32>(from));
      else for (let k = strip; k; k--, to += width) store<f32>(to, 0);
    }
    source += strip << 2;
    panel += <usize>strip * width;
    left -= strip;
  }
}

/** Consecutive panels of a transposed b, `columns` in all. */
export function packTransposedPanels(source: usize, stride: usize, depth: u32, columns: u32, panel: usize): void {
  for (let j: u32 = 0; j < columns; j += tileColumns, panel += <usize>depth * (tileColumns << 2)) {
    packTransposed(source + j * stride, stride, depth, min(tileColumns, columns - j), panel);
  }
}

/**
 * Packs rows of a row-major a into tiles of tileRows rows, the last one as narrow as what is left: tile[k, r] = source[r, k].
 * Tiles follow one another every `tileBytes`.
 */
export function packA(source: usize, stride: usize, depth: u32, rows: u32, target: usize, tileBytes: usize): void {
  for (; rows >= tileRows; rows -= tileRows, source += tileRows * stride, target += tileBytes) {
    if (tileRows == 6) packTile6(source, stride, depth, target);
    else if (tileRows == 5) packTile5(source, stride, depth, target);
    else packTile4(source, stride, depth, target);
  }
  const width: usize = rows << 2;
  for (let r: u32 = 0; r < rows; r++) {
    let from = source + r * stride, to = target + (<usize>r << 2);
    for (let k = depth; k; k--, from += 4, to += width) store<f32>(to, load<f32>(from));
  }
}

function packTile4(source: usize, stride: usize, depth: u32, target: usize): void {
  for (; depth >= 4; depth -= 4, source += 16, target += 64) transpose4(source, stride, target, 16);
  packRest(source, stride, depth, 4, target);
}

function packTile5(source: usize, stride: usize, depth: u32, target: usize): void {
  for (; depth >= 4; depth -= 4, source += 16, target += 80) {
    transpose4(source, stride, target, 20);
    const v = v128.load(source + 4 * stride);
    v128.store32_lane(target, v, 0, 16);
    v128.store32_lane(target, v, 1, 36);
    v128.store32_lane(target, v, 2, 56);
    v128.store32_lane(target, v, 3, 76);
  }
  packRest(source, stride, depth, 5, target);
}

function packTile6(source: usize, stride: usize, depth: u32, target: usize): void {
  for (; depth >= 4; depth -= 4, source += 16, target += 96) {
    transpose4(source, stride, target, 24);
    const v = v128.load(source + 4 * stride), w = v128.load(source + 5 * stride);
    const low = v128.shuffle<f32>(v, w, 0, 4, 1, 5), high = v128.shuffle<f32>(v, w, 2, 6, 3, 7);
    v128.store64_lane(target, low, 0, 16);
    v128.store64_lane(target, low, 1, 40);
    v128.store64_lane(target, high, 0, 64);
    v128.store64_lane(target, high, 1, 88);
  }
  packRest(source, stride, depth, 6, target);
}

function packRest(source: usize, stride: usize, depth: u32, rows: u32, target: usize): void {
  for (; depth; depth--, source += 4) {
    for (let r: u32 = 0; r < rows; r++, target += 4) store<f32>(target, load<f32>(source + r * stride));
  }
}

/** Tiles that `copyA` fills at a time: their columns stand side by side, and cache lines are read once. */
const TILES_AT_ONCE: u32 = 8;

/** The same for a transposed, that is k-major, a: tile[k, r] = source[k, r]. */
export function copyA(source: usize, stride: usize, depth: u32, rows: u32, target: usize, tileBytes: usize): void {
  while (rows >= tileRows) {
    const tiles = min(rows / tileRows, TILES_AT_ONCE), width: usize = tileRows << 2;
    let from = source, to = target;
    for (let k = depth; k; k--, from += stride, to += width) {
      let p = from, q = to;
      if (tileRows == 6) {
        for (let t = tiles; t; t--, p += 24, q += tileBytes) {
          const v = v128.load(p), last = load<u64>(p, 16);
          v128.store(q, v);
          store<u64>(q, last, 16);
        }
      } else if (tileRows == 5) {
        for (let t = tiles; t; t--, p += 20, q += tileBytes) {
          const v = v128.load(p), last = load<f32>(p, 16);
          v128.store(q, v);
          store<f32>(q, last, 16);
        }
      } else {
        for (let t = tiles; t; t--, p += 16, q += tileBytes) v128.store(q, v128.load(p));
      }
    }
    rows -= tiles * tileRows;
    source += tiles * tileRows << 2;
    target += tiles * tileBytes;
  }
  if (!rows) return;
  for (let k = depth; k; k--, source += stride) {
    for (let r: u32 = 0; r < rows; r++, target += 4) store<f32>(target, load<f32>(source + (r << 2)));
  }
}
