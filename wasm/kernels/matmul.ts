// c = epilogue(A·B): a and b are packed by a step of their own where chunks share them, else as they are needed; each chunk
// computes one block of c.
//
// A chunk owns rows × columns of c and walks k in blocks, so that the rows of a stay in L2 while panels of b pass through
// L1. Every element of c is one sequential chain of fused multiply-adds in k, whatever the tile shape, the chunk size or the
// number of threads: none of them changes the result.
import { constants, scratch, tileColumns, tileRows, zeros } from "./context";
import { copyA, PANELS_AT_ONCE, packA, packPanels, packTransposedPanels, rowsBlock, tileBlock } from "./block";
import { addressOfOne } from "./math";
import { geluBackwardRow, geluKeepingRow, geluRow, scaledRow, scaledSumRow } from "./rows";
import { ceilDiv, word } from "./step";

/**
 * Packs what chunks of a product share. Arguments: b, its panels, k, n, row stride of b in bytes, whether b is transposed,
 * chunks of b, a, its tiles (see packA), m, row stride of a in bytes, whether a is transposed, rows of a chunk of a, depth
 * of a block of k.
 * Chunks of four panels of b come first, then those of a. Tiles lie block of k by block of k.
 */
export function pack(step: usize, chunk: u32): void {
  const k = word(step, 2), chunksOfB = word(step, 6);
  if (chunk < chunksOfB) {
    const n = word(step, 3), stride: usize = word(step, 4), first = chunk * PANELS_AT_ONCE * tileColumns;
    const b: usize = word(step, 0), last = min(n, first + PANELS_AT_ONCE * tileColumns);
    const panels = word(step, 1) + <usize>first * (k << 2);
    if (word(step, 5)) packTransposedPanels(b + first * stride, stride, k, last - first, panels);
    else packPanels(b + (<usize>first << 2), stride, k, last - first, panels);
    return;
  }
  const m = word(step, 9), perChunk = word(step, 12), row = (chunk - chunksOfB) * perChunk, rows = min(perChunk, m - row);
  const stride: usize = word(step, 10), blockDepth = word(step, 13);
  for (let k0: u32 = 0; k0 < k; k0 += blockDepth) {
    const depth = min(blockDepth, k - k0), target = word(step, 8) + (<usize>(k0 * m + row * depth) << 2);
    const tileBytes = <usize>depth * (tileRows << 2);
    if (word(step, 11)) copyA(word(step, 7) + k0 * stride + (<usize>row << 2), stride, depth, rows, target, tileBytes);
    else packA(word(step, 7) + row * stride + (<usize>k0 << 2), stride, depth, rows, target, tileBytes);
  }
}

/** How `matmul` reads a. */
const DIRECT: u32 = 0; // row-major, as it lies
const PACK_ROWS: u32 = 1; // row-major, packed here
const PACK_COLUMNS: u32 = 2; // transposed (k-major), packed here
// 3: tiles, packed by an earlier step

/** How `matmul` finds the panels of b. */
const PANELS: u32 = 0; // packed by an earlier step
const RAW: u32 = 1; // rows of b as they lie
const OWN_ROWS: u32 = 2; // packed here, from a row-major b
// 3: packed here, from a transposed b

/** What happens to a block once it is complete. */
const STORE: u32 = 0; // nothing: it was computed in place
const PLAIN: u32 = 1;
const GELU: u32 = 2;
const GELU_BACKWARD: u32 = 3;

/**
 * Arguments: a, row stride of a in bytes, mode of a, b or its panels, c, m, n, k, rows a chunk, columns a chunk, bias (or 0),
 * residual (or 0), accumulate, epilogue, pre (or 0), rowScale (or 0), rowsPerScale, mode of b, row stride of b in bytes,
 * depth of a block of k, columns a group (all of a chunk unless the tile is to be narrower), whether all of k is packed at once,
 * how many row chunks are that large, rows of those after them.
 * Scratch: four panels, a packed (if it is packed here), a tile (unless blocks go straight to c).
 */
export function matmul(step: usize, chunk: u32): void {
  const a: usize = word(step, 0), aStride: usize = word(step, 1), mode = word(step, 2), b: usize = word(step, 3);
  const m = word(step, 5), n = word(step, 6), k = word(step, 7);
  const rowsPerChunk = word(step, 8), columnsPerChunk = word(step, 9), epilogue = word(step, 13);
  const blockDepth = word(step, 19), group = word(step, 20), whole = word(step, 21), tileWidth: usize = tileRows << 2;
  const columnChunks = ceilDiv(n, columnsPerChunk), rowChunk = chunk / columnChunks;
  const largeChunks = word(step, 22), smallRows = word(step, 23), large = rowChunk < largeChunks;
  const row = large ? rowChunk * rowsPerChunk : largeChunks * rowsPerChunk + (rowChunk - largeChunks) * smallRows;
  const firstColumn = (chunk - rowChunk * columnChunks) * columnsPerChunk;
  const rows = min(large ? rowsPerChunk : smallRows, m - row), lastColumn = min(firstColumn + columnsPerChunk, n);
  const cStride: usize = n << 2;

  const own = scratch, packed = own + <usize>blockDepth * (PANELS_AT_ONCE * tileColumns << 2);
  const packs = mode == PACK_ROWS || mode == PACK_COLUMNS;
  const tile = packed + (packs ? <usize>rowsPerChunk * ((whole ? k : blockDepth) << 2) : 0);
  const bMode = word(step, 17), bRow: usize = word(step, 18);
  const bStride: usize = bMode == RAW ? bRow : <usize>(tileColumns << 2);
  if (whole) {
    for (let k0: u32 = 0; k0 < k; k0 += blockDepth) {
      packBlock(mode, a, aStride, row, rows, k0, min(blockDepth, k - k0), packed + (<usize>(k0 * rows) << 2));
    }
  }
  for (let column = firstColumn; column < lastColumn; column += group) {
    const columns = min(group, lastColumn - column);
    const offset = (<usize>row * n + column) << 2;
    let out = word(step, 4) + offset, outStride = cStride;
    let start = zeros, startStride: usize = 0, bias = zeros;
    if (epilogue != STORE) {
      out = tile;
      outStride = <usize>ceilDiv(columns, tileColumns) * (tileColumns << 2);
      // Rows a multiple of 4 KiB apart would share cache sets.
      if ((outStride & 1023) == 0) outStride += 64;
    } else if (word(step, 11)) {
      start = word(step, 11) + offset;
      startStride = cStride;
    } else if (word(step, 12)) {
      start = out;
      startStride = cStride;
    }
    // Past a ragged end the bias read is not a bias; it only reaches padding of the tile.
    if (word(step, 10)) bias = word(step, 10) + (<usize>column << 2);

    let k0: u32 = 0;
    do {
      const depth = min(blockDepth, k - k0), first = k0 == 0;
      const aTile = depth * tileWidth;
      let tiles = packed;
      if (whole) tiles += <usize>(k0 * rows) << 2;
      else if (packs) packBlock(mode, a, aStride, row, rows, k0, depth, packed);
      else tiles = a + (<usize>(k0 * m + row * depth) << 2);
      for (let j: u32 = 0; j < columns; j += tileColumns) {
        const at = <usize>j << 2;
        const jb = column + j;
        let panel: usize = 0;
        if (bMode == PANELS) panel = b + <usize>jb * (k << 2) + <usize>k0 * (tileColumns << 2);
        else if (bMode == RAW) panel = b + k0 * bRow + (<usize>jb << 2);
        else {
          const inGroup = j % (PANELS_AT_ONCE * tileColumns);
          panel = own + <usize>inGroup * (depth << 2);
          if (!inGroup) {
            const wanted = min(PANELS_AT_ONCE * tileColumns, columns - j);
            if (bMode == OWN_ROWS) packPanels(b + k0 * bRow + (<usize>jb << 2), bRow, depth, wanted, own);
            else packTransposedPanels(b + jb * bRow + (<usize>k0 << 2), bRow, depth, wanted, own);
          }
        }
        const from = first ? (startStride ? start + at : start) : out + at;
        const fromStride = first ? startStride : outStride;
        const shift = first && bias != zeros ? bias + at : zeros;
        if (mode == DIRECT) {
          rowsBlock(
            rows, depth, a + row * aStride + (<usize>k0 << 2), aStride, panel, bStride, from, fromStride, shift, out + at,
            outStride,
          );
        } else tileBlock(rows, depth, tiles, aTile, panel, from, fromStride, shift, out + at, outStride);
      }
      k0 += depth;
    } while (k0 < k);
    if (epilogue != STORE) finish(step, tile, outStride, row, column, rows, columns);
  }
}

/** Packs a chunk's rows of a over a block of k. */
function packBlock(
  mode: u32, a: usize, stride: usize, row: u32, rows: u32, k0: u32, depth: u32, target: usize,
): void {
  const tileBytes = <usize>depth * (tileRows << 2);
  if (mode == PACK_ROWS) packA(a + row * stride + (<usize>k0 << 2), stride, depth, rows, target, tileBytes);
  else copyA(a + k0 * stride + (<usize>row << 2), stride, depth, rows, target, tileBytes);
}

/** c = (accumulate ? c : 0) + residual + rowScale·f(tile); the tile holds the product with its bias. */
function finish(step: usize, tile: usize, tileStride: usize, row: u32, column: u32, rows: u32, columns: u32): void {
  const n = word(step, 6), accumulate = word(step, 12), epilogue = word(step, 13), perScale = word(step, 16);
  const residual: usize = word(step, 11), pre: usize = word(step, 14), rowScale: usize = word(step, 15);
  const plain = !accumulate && !residual && !rowScale;
  for (let r: u32 = 0; r < rows; r++, tile += tileStride) {
    const offset = (<usize>(row + r) * n + column) << 2, c = word(step, 4) + offset, to = plain ? c : tile;
    if (epilogue == GELU_BACKWARD) geluBackwardRow(tile, pre + offset, to, columns, constants);
    else if (epilogue == PLAIN) {
      if (plain) memory.copy(c, tile, columns << 2);
    } else if (pre) geluKeepingRow(tile, pre + offset, to, columns, constants);
    else geluRow(tile, to, columns, constants);
    if (plain) continue;
    const factor = rowScale ? rowScale + (<usize>((row + r) / perScale) << 2) : addressOfOne(constants);
    if (residual) scaledSumRow(tile, factor, residual + offset, accumulate ? tile : c, columns);
    if (accumulate) scaledSumRow(tile, residual ? addressOfOne(constants) : factor, c, c, columns);
    else if (!residual) scaledRow(tile, factor, c, columns);
  }
}
