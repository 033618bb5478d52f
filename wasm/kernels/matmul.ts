// c = epilogue(A·B): B is packed in panels, by a step of its own or as it is needed; each chunk computes one block of c.
//
// A chunk owns rows × columns of c and walks k in blocks of KC, so that one panel of b (KC × tile columns) stays in L1 and
// the rows of a in L2. Every element of c is one sequential chain of fused multiply-adds in k, whatever the tile shape,
// the chunk size or the number of threads: none of them changes the result.
import { constants, scratch, tileColumns, tileRows, zeros } from "./context";
import { colsBlock, packA, packPanel, packTransposed, rowsBlock } from "./block";
import { loadUpTo, storeUpTo } from "./math";
import { geluBackwardRow, geluRow } from "./rows";
import { ceilDiv, word } from "./step";

/** Depth of a block of k. */
export const KC: u32 = 384;

/** Packs panels of a row-major b [k, n]; arguments b, panels, k, n, row stride in bytes. A chunk is a panel. */
export function packRows(step: usize, chunk: u32): void {
  const k = word(step, 2), n = word(step, 3), first = chunk * tileColumns;
  packPanel(
    word(step, 0) + (<usize>first << 2), word(step, 4), k, n - first, word(step, 1) + <usize>first * (k << 2),
  );
}

/** Packs panels of a transposed b [n, k]; arguments as packRows. */
export function packColumns(step: usize, chunk: u32): void {
  const k = word(step, 2), n = word(step, 3), stride: usize = word(step, 4), first = chunk * tileColumns;
  packTransposed(
    word(step, 0) + first * stride, stride, k, min(n - first, tileColumns), word(step, 1) + <usize>first * (k << 2),
    tileColumns,
  );
}

/** How `matmul` reads a. */
const DIRECT: u32 = 0; // row-major, as it lies
const PACK_ROWS: u32 = 1; // row-major, packed
const PACK_COLUMNS: u32 = 2; // transposed (k-major), packed

/** How `matmul` finds the panels of b. */
const PANELS: u32 = 0; // packed by an earlier step, because many chunks share them
const RAW: u32 = 1; // rows of b as they lie
const OWN_ROWS: u32 = 2; // packed here, from a row-major b
const OWN_COLUMNS: u32 = 3; // packed here, from a transposed b

/** What happens to a block once it is complete. */
const STORE: u32 = 0; // nothing: it was computed in place
const PLAIN: u32 = 1;
const GELU: u32 = 2;
const GELU_BACKWARD: u32 = 3;

/**
 * Arguments: a, row stride of a in bytes, mode of a, panels, c, m, n, k, rows a chunk, columns a chunk, bias (or 0),
 * residual (or 0), accumulate, epilogue, pre (or 0), rowScale (or 0), rowsPerScale, mode of b, row stride of b in bytes.
 * Scratch: a packed (unless direct), one panel, a tile (unless blocks go straight to c).
 */
export function matmul(step: usize, chunk: u32): void {
  const a: usize = word(step, 0), aStride: usize = word(step, 1), mode = word(step, 2), b: usize = word(step, 3);
  const c: usize = word(step, 4), m = word(step, 5), n = word(step, 6), k = word(step, 7);
  const rowsPerChunk = word(step, 8), columnsPerChunk = word(step, 9), epilogue = word(step, 13);
  const columnChunks = ceilDiv(n, columnsPerChunk), rowChunk = chunk / columnChunks;
  const row = rowChunk * rowsPerChunk, column = (chunk - rowChunk * columnChunks) * columnsPerChunk;
  const rows = min(rowsPerChunk, m - row), columns = min(columnsPerChunk, n - column);
  const cStride: usize = n << 2, origin = c + <usize>row * cStride + (<usize>column << 2);

  const own = scratch, packed = own + <usize>KC * (tileColumns << 2);
  const tile = packed + (mode == DIRECT ? 0 : <usize>ceilDiv(rowsPerChunk, tileRows) * tileRows * (KC << 2));
  let out = origin, outStride = cStride;
  let start = zeros, startStride: usize = 0, bias = zeros;
  if (epilogue != STORE) {
    out = tile;
    outStride = <usize>ceilDiv(columns, tileColumns) * (tileColumns << 2);
    // Rows a multiple of 4 KiB apart would share cache sets.
    if ((outStride & 1023) == 0) outStride += 64;
  } else {
    const residual: usize = word(step, 11);
    if (residual) {
      start = residual + (origin - c);
      startStride = cStride;
    } else if (word(step, 12)) {
      start = origin;
      startStride = cStride;
    }
  }
  // Past a ragged end the bias read is not a bias; it only reaches padding of the tile.
  if (word(step, 10)) bias = word(step, 10) + (<usize>column << 2);

  const bMode = word(step, 17), bRow: usize = word(step, 18);
  const bStride: usize = bMode == RAW ? bRow : <usize>(tileColumns << 2);
  let k0: u32 = 0;
  do {
    const depth = min(KC, k - k0), first = k0 == 0;
    if (mode == PACK_ROWS) packA(a + row * aStride + (<usize>k0 << 2), aStride, depth, rows, packed);
    else if (mode == PACK_COLUMNS) copyA(a + k0 * aStride + (<usize>row << 2), aStride, depth, rows, packed);
    for (let j: u32 = 0; j < columns; j += tileColumns) {
      const at = <usize>j << 2;
      const jb = column + j;
      let panel = own;
      if (bMode == PANELS) panel = b + <usize>jb * (k << 2) + <usize>k0 * (tileColumns << 2);
      else if (bMode == RAW) panel = b + k0 * bRow + (<usize>jb << 2);
      else if (bMode == OWN_ROWS) packPanel(b + k0 * bRow + (<usize>jb << 2), bRow, depth, n - jb, own);
      else packTransposed(b + jb * bRow + (<usize>k0 << 2), bRow, depth, min(n - jb, tileColumns), own, tileColumns);
      const from = first ? (startStride ? start + at : start) : out + at;
      const fromStride = first ? startStride : outStride;
      const shift = first && bias != zeros ? bias + at : zeros;
      if (mode == DIRECT) {
        rowsBlock(
          rows, depth, a + row * aStride + (<usize>k0 << 2), aStride, panel, bStride, from, fromStride, shift, out + at,
          outStride,
        );
      } else {
        colsBlock(
          rows, depth, packed, tileRows << 2, <usize>depth * (tileRows << 2), panel, bStride, from, fromStride, shift,
          out + at, outStride,
        );
      }
    }
    k0 += depth;
  } while (k0 < k);
  if (epilogue != STORE) finish(step, tile, outStride, row, column, rows, columns);
}

/** Packs columns of a transposed a into blocks of tileRows; what lies beyond the last row is never read as such. */
function copyA(source: usize, stride: usize, depth: u32, rows: u32, target: usize): void {
  for (let r: u32 = 0; r < rows; r += tileRows, source += tileRows << 2) {
    const valid = min(tileRows, rows - r);
    let p = source;
    if (valid == 5 && tileRows == 5) {
      for (let k = depth; k; k--, p += stride, target += 20) {
        const v = v128.load(p), last = load<f32>(p, 16);
        v128.store(target, v);
        store<f32>(target, last, 16);
      }
    } else if (valid == 4 && tileRows == 4) {
      for (let k = depth; k; k--, p += stride, target += 16) v128.store(target, v128.load(p));
    } else if (valid == 6 && tileRows == 6) {
      for (let k = depth; k; k--, p += stride, target += 24) {
        const v = v128.load(p), last = load<u64>(p, 16);
        v128.store(target, v);
        store<u64>(target, last, 16);
      }
    } else {
      for (let k = depth; k; k--, p += stride, target += tileRows << 2) {
        for (let i: u32 = 0; i < valid; i++) store<f32>(target + (i << 2), load<f32>(p + (i << 2)));
      }
    }
  }
}

/** c = (accumulate ? c : 0) + residual + rowScale·f(tile); the tile holds the product with its bias. */
function finish(step: usize, tile: usize, tileStride: usize, row: u32, column: u32, rows: u32, columns: u32): void {
  const n = word(step, 6), accumulate = word(step, 12), epilogue = word(step, 13), perScale = word(step, 16);
  const residual: usize = word(step, 11), pre: usize = word(step, 14), rowScale: usize = word(step, 15);
  const plain = !accumulate && !residual && !rowScale;
  for (let r: u32 = 0; r < rows; r++, tile += tileStride) {
    const offset = (<usize>(row + r) * n + column) << 2, c = word(step, 4) + offset;
    if (epilogue == GELU) {
      if (pre) memory.copy(pre + offset, tile, columns << 2);
      geluRow(tile, plain ? c : tile, columns, constants);
    } else if (epilogue == GELU_BACKWARD) {
      geluBackwardRow(tile, pre + offset, plain ? c : tile, columns, constants);
    } else if (plain) memory.copy(c, tile, columns << 2);
    if (plain) continue;
    const factor = f32x4.splat(rowScale ? load<f32>(rowScale + (<usize>((row + r) / perScale) << 2)) : 1);
    for (let j: u32 = 0; j < columns; j += 4) {
      const left = columns - j, at = <usize>j << 2;
      let v = f32x4.mul(v128.load(tile + at), factor);
      if (residual) v = f32x4.add(v, loadUpTo(residual + offset + at, left));
      if (accumulate) v = f32x4.add(v, loadUpTo(c + at, left));
      storeUpTo(c + at, v, left);
    }
  }
}
