// Blocks of a matrix product in the tile shape chosen at start-up, and the packing that feeds them.
import { colsBlock16, colsBlock8, rowsBlock16, rowsBlock8 } from "./micro";
import { tileColumns, tileRows } from "./context";

/**
 * c[r, 0 … columns of a tile] = start + bias + Σₖ a(r, k)·b(k, :) for `rows` rows of a row-major a; see micro_kernels.ts.
 * All strides in bytes.
 */
export function rowsBlock(
  rows: u32, depth: u32, a: usize, aStride: usize, b: usize, bStride: usize,
  start: usize, startStride: usize, bias: usize, c: usize, cStride: usize,
): void {
  if (tileColumns == 16) rowsBlock16(rows, tileRows, depth, a, aStride, 0, b, bStride, start, startStride, bias, c, cStride);
  else rowsBlock8(rows, tileRows, depth, a, aStride, 0, b, bStride, start, startStride, bias, c, cStride);
}

/** The same for a k-major a; blocks of `tileRows` rows follow one another every `aTile` bytes. */
export function colsBlock(
  rows: u32, depth: u32, a: usize, aStride: usize, aTile: usize, b: usize, bStride: usize,
  start: usize, startStride: usize, bias: usize, c: usize, cStride: usize,
): void {
  if (tileColumns == 16) colsBlock16(rows, tileRows, depth, a, aStride, aTile, b, bStride, start, startStride, bias, c, cStride);
  else colsBlock8(rows, tileRows, depth, a, aStride, aTile, b, bStride, start, startStride, bias, c, cStride);
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

/**
 * Transposes `rows` rows of `depth` elements into a k-major block: target[k, r] = source[r, k], whose rows are `width`
 * elements wide; columns from `rows` to `width` become 0.
 */
export function packTransposed(source: usize, stride: usize, depth: u32, rows: u32, target: usize, width: u32): void {
  const targetStride: usize = width << 2;
  let r: u32 = 0;
  for (; r + 4 <= rows; r += 4) {
    let from = source + <usize>r * stride, to = target + (<usize>r << 2);
    let k = depth;
    for (; k >= 4; k -= 4, from += 16, to += 4 * targetStride) transpose4(from, stride, to, targetStride);
    for (; k; k--, from += 4, to += targetStride) {
      store<f32>(to, load<f32>(from));
      store<f32>(to, load<f32>(from + stride), 4);
      store<f32>(to, load<f32>(from + 2 * stride), 8);
      store<f32>(to, load<f32>(from + 3 * stride), 12);
    }
  }
  for (; r < width; r++) {
    let from = source + <usize>r * stride, to = target + (<usize>r << 2);
    if (r < rows) {
      for (let k = depth; k; k--, from += 4, to += targetStride) store<f32>(to, load<f32>(from));
    } else {
      for (let k = depth; k; k--, to += targetStride) store<f32>(to, 0);
    }
  }
}

/** Packs rows of a row-major a k-major, in blocks of tileRows. */
export function packA(source: usize, stride: usize, depth: u32, rows: u32, target: usize): void {
  for (let r: u32 = 0; r < rows; r += tileRows) {
    packTransposed(source + r * stride, stride, depth, min(tileRows, rows - r), target, tileRows);
    target += <usize>depth * (tileRows << 2);
  }
}
