// Matrix products: how a and b are read, and how c is cut.
import { matmulExtents, type MatmulOp } from "../../models/graph/ops/matmul.ts";
import { asMatrix } from "../../models/graph/program.ts";
import { size } from "../../models/graph/tensor.ts";
import { Code } from "../codes.ts";
import { flag, type Lowering, type Lowerings, requirePlain } from "../lowering.ts";

/** Deepest block of k: panels of b then pass from L2 through L1 as fast as they are used. */
const DEPTH = 768;
/** Widest register tile; panels may be narrower, their padding is never wider. */
const PANEL = 16;
/** Rows of a chunk: multiples of every tile's rows. */
const ROWS = [480, 240, 180, 120, 60];
/** Least work of a chunk, in multiply-adds. */
const WORK = 1 << 18;
/** Largest tile that stays in L2 beside what is packed, in elements. */
const TILE = 1 << 15;
/** Costs in multiply-adds: to pack an element, to read one that is packed, to begin a chunk. */
const PACK = 18, READ = 2, CHUNK = 60000;
/** The same to pack an element for the chunk itself, in its own L2. */
const PACK_OWN = 8;
/** Rows of a chunk that computes whole rows of c: packed, they stay in L2 while all of b passes by. */
const WHOLE_ROWS = [60, 48, 36, 24];
/** Rows of the last of them, whole tiles of most shapes: whoever is done first then waits for less. */
const END_ROWS = 12;
/** Most elements such a chunk packs. */
const WHOLE = 98304;

/**
 * How kernels/matmul.ts reads a. Packed rows pay for themselves from a few panels on: the inner loop then has one pointer
 * instead of one a row, and rows a power of two apart do not evict one another.
 */
enum ReadA {
  direct,
  packRows,
  packColumns,
  tiles,
}

/** Rows up to which packing b does not pay at all. */
const RAW_ROWS = 8;

/** How it finds the panels of b. */
enum ReadB {
  panels,
  raw,
  ownRows,
  ownColumns,
}

/** Rows up to which a chunk packs panels of b for itself: then hardly any other chunk needs the same. */
const OWN_PANEL_ROWS = 480;
/** Most elements of a that are packed for all chunks: that costs memory, and longer products have columns enough a chunk. */
const SHARED = 1 << 22;

/** Rows of a that a chunk packs for all. */
const SHARED_ROWS = 60;
/** Panels of b that a chunk packs for all; PANELS_AT_ONCE of kernels/matmul.ts. */
const PANELS_AT_ONCE = 4;

/** What it does with a finished block. */
enum Epilogue {
  store,
  plain,
  gelu,
  geluBackward,
}

export const matmulLowerings: Lowerings = { matmul };

/** Bytes of all panels of a b of [k, n]. */
export function panelBytes(n: number, k: number): number {
  return Math.ceil(n / PANEL) * PANEL * k * 4;
}

/** Whether a product reads b in panels, whoever packs them. */
export function packsPanels(op: MatmulOp): boolean {
  const { m, n } = matmulExtents(op);
  return n > 0 && (op.attrs.transA || op.attrs.transB || m > RAW_ROWS);
}

function matmul(op: MatmulOp, to: Lowering): void {
  const { m, n, k } = matmulExtents(op);
  if (m === 0 || n === 0) return;
  requirePlain(op.kind, !op.attrs.prologueA && !op.attrs.prologueB);
  const { a, b, bias, residual, rowScale } = op.in;
  const { transA, transB, accumulate } = op.attrs;
  const pre = op.out.pre ?? op.in.pre;
  const epilogue = epilogueOf(op, n);
  const aRow = asMatrix(a)[1] * 4, bRow = asMatrix(b)[1] * 4;

  const kept = to.panels(op);
  let readB = ReadB.panels;
  if (!packsPanels(op)) readB = ReadB.raw;
  else if (!kept && m <= OWN_PANEL_ROWS) readB = transB ? ReadB.ownColumns : ReadB.ownRows;
  let readA = transA ? ReadA.packColumns : n >= 64 && m > RAW_ROWS ? ReadA.packRows : ReadA.direct;
  const depth = Math.ceil(k / Math.max(1, Math.ceil(k / DEPTH)) / 8) * 8;
  const tiled = epilogue !== Epilogue.store, extents = { m, n, k };
  const shared = readA !== ReadA.direct && m * k <= SHARED;
  let { rows, columns, time } = cutProduct(to.threads, extents, {
    tiled,
    packsA: !shared && readA !== ReadA.direct,
    packsB: readB !== ReadB.panels,
  });
  const wholeRows = readA === ReadA.packRows && readB === ReadB.panels ? cutRows(to.threads, extents) : undefined;
  const whole = wholeRows !== undefined && wholeRows.time < time + (shared ? PACK * m * k / to.threads : 0);
  if (whole) ({ rows, columns } = wholeRows);
  const largeChunks = whole ? largeRowChunks(to.threads, m, rows) : Math.ceil(m / rows);
  const smallChunks = Math.ceil(Math.max(0, m - largeChunks * rows) / END_ROWS);
  const group = tiled ? groupColumns(rows, columns) : columns;
  let aAddress = to.at(a), bAddress = to.at(b);
  let chunksOfA = 0, chunksOfB = 0;
  if (readB === ReadB.panels) {
    bAddress = kept?.address ?? to.workspace(panelBytes(n, k));
    if (!kept?.packed) chunksOfB = Math.ceil(n / to.tileColumns / PANELS_AT_ONCE);
  }
  if (shared && !whole && n > columns) {
    aAddress = to.workspace(m * k * 4);
    readA = ReadA.tiles;
    chunksOfA = Math.ceil(m / SHARED_ROWS);
  }
  to.step(Code.pack, chunksOfA + chunksOfB, [
    to.at(b),
    bAddress,
    k,
    n,
    bRow,
    flag(transB),
    chunksOfB,
    to.at(a),
    aAddress,
    m,
    aRow,
    flag(transA),
    SHARED_ROWS,
    depth,
  ]);
  const packed = readA === ReadA.packRows || readA === ReadA.packColumns ? rows * (whole ? k : depth) : 0;
  const tile = tiled ? rows * (group + 2 * PANEL) : 0;
  to.scratch(4 * (PANELS_AT_ONCE * PANEL * depth + packed + tile));
  to.step(Code.matmul, (largeChunks + smallChunks) * Math.ceil(n / columns), [
    aAddress,
    aRow,
    readA,
    bAddress,
    to.at(op.out.c),
    m,
    n,
    k,
    rows,
    columns,
    to.at(bias),
    to.at(residual),
    flag(accumulate),
    epilogue,
    to.at(pre),
    to.at(rowScale),
    rowScale ? m / size(rowScale) : 1,
    readB,
    bRow,
    depth,
    group,
    flag(whole),
    largeChunks,
    END_ROWS,
  ]);
}

/** Blocks go straight to c where nothing but a bias and one addend is wanted and panels fit. */
function epilogueOf(op: MatmulOp, n: number): Epilogue {
  if (op.attrs.epilogue === "gelu") return Epilogue.gelu;
  if (op.attrs.epilogue === "geluBackward") return Epilogue.geluBackward;
  if (op.in.rowScale || n % PANEL !== 0 || (op.in.residual && op.attrs.accumulate)) return Epilogue.plain;
  return Epilogue.store;
}

/** How a product is cut into chunks, and about how long it then takes in multiply-adds of one thread. */
interface Cut {
  readonly rows: number;
  readonly columns: number;
  readonly time: number;
}

/**
 * Rows and columns of a chunk: large enough to reuse what it packs, small enough to keep all threads busy to the end.
 * Costs are in multiply-adds.
 */
function cutProduct(
  threads: number,
  { m, n, k }: { m: number; n: number; k: number },
  { tiled, packsA, packsB }: { tiled: boolean; packsA: boolean; packsB: boolean },
): Cut {
  const width = Math.ceil(n / PANEL) * PANEL;
  let best: Cut = { rows: 60, columns: PANEL, time: Infinity };
  for (const most of ROWS) {
    const rows = Math.min(most, Math.ceil(m / 60) * 60), rowChunks = Math.ceil(m / rows);
    for (let parts = 1; parts <= width / PANEL; parts++) {
      const columns = Math.ceil(width / parts / PANEL) * PANEL, columnChunks = Math.ceil(width / columns);
      if (tiled && rows * columns > TILE && columns > PANEL) continue;
      const chunks = rowChunks * columnChunks;
      const packing = (packsA ? PACK : READ) * m * columnChunks + (packsB ? PACK : READ) * width * rowChunks;
      const total = k * (m * width + packing) + CHUNK * chunks;
      // At the end the other threads wait for about half a chunk.
      const time = total / threads + (threads > 1 ? total / chunks / 2 : 0);
      if (time < best.time) best = { rows, columns, time };
      if (rows * columns * k < WORK) break;
    }
  }
  return best;
}

/** Chunks of whole rows of c: undefined where not even the fewest rows stay in L2. */
function cutRows(threads: number, { m, n, k }: { m: number; n: number; k: number }): Cut | undefined {
  const columns = Math.ceil(n / PANEL) * PANEL;
  // All of b passes by once a chunk.
  const timeOf = (rows: number, chunkRows: number) =>
    rows * (k * (columns + PACK_OWN) + (k * columns + CHUNK) / chunkRows);
  let best: Cut | undefined;
  for (const rows of WHOLE_ROWS) {
    if (rows * k > WHOLE) continue;
    const large = Math.min(m, largeRowChunks(threads, m, rows) * rows);
    const wait = threads > 1 ? timeOf(END_ROWS, END_ROWS) / 2 : 0;
    const time = (timeOf(large, rows) + timeOf(m - large, END_ROWS)) / threads + wait;
    if (!best || time < best.time) best = { rows, columns, time };
  }
  return best;
}

/** Chunks of so many rows before those of {@link END_ROWS}, which are work for all other threads while one is at its last large one. */
function largeRowChunks(threads: number, m: number, rows: number): number {
  return Math.max(0, threads > 1 ? Math.floor(m / rows) - (threads - 1) : Math.ceil(m / rows));
}

/** Columns that a chunk finishes at a time, so that its tile stays in L2. */
function groupColumns(rows: number, columns: number): number {
  const groups = Math.ceil(rows * columns / TILE);
  return Math.ceil(columns / groups / PANEL) * PANEL;
}
