// Matrix products: how a and b are read, and how c is cut.
import { matmulExtents, type MatmulOp } from "../../models/graph/ops/matmul.ts";
import { asMatrix } from "../../models/graph/program.ts";
import { size } from "../../models/graph/tensor.ts";
import { Code } from "../codes.ts";
import { flag, type Lowering, type Lowerings } from "../lowering.ts";

/** Depth of a block of k; KC of kernels/matmul.ts. */
const DEPTH = 384;
/** Widest register tile; panels may be narrower, their padding is never wider. */
const PANEL = 16;
/** Rows of a chunk: multiples of every tile's rows. */
const ROWS = [240, 120, 60, 20];
/** Least work of a chunk, in multiply-adds. */
const WORK = 1 << 18;
/** Largest tile that stays in L2 beside what is packed, in elements. */
const TILE = 1 << 16;
/** Measured costs in multiply-adds: to pack an element of a, or of a panel; to read an element of a panel; to begin a chunk. */
const PACK_A = 16, PACK_B = 30, READ_B = 8, CHUNK = 20000;

/**
 * How kernels/matmul.ts reads a. Packed rows pay for themselves from a few panels on: the inner loop then has one pointer
 * instead of one a row (87 against 80 GFLOP/s), and rows a power of two apart do not evict one another.
 */
enum ReadA {
  direct,
  packRows,
  packColumns,
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

/** What it does with a finished block. */
enum Epilogue {
  store,
  plain,
  gelu,
  geluBackward,
}

export const matmulLowerings: Lowerings = { matmul };

function matmul(op: MatmulOp, to: Lowering): void {
  const { m, n, k } = matmulExtents(op);
  if (m === 0 || n === 0) return;
  const { a, b, bias, residual, rowScale } = op.in;
  const { transA, transB, accumulate } = op.attrs;
  const pre = op.out.pre ?? op.in.pre;
  const epilogue = epilogueOf(op, n);
  const mode = transA ? ReadA.packColumns : n >= 64 && m >= 8 ? ReadA.packRows : ReadA.direct;

  const bRow = asMatrix(b)[1] * 4;
  let readB = ReadB.panels, panels = to.at(b);
  if (!transB && m <= RAW_ROWS) readB = ReadB.raw;
  else if (m <= OWN_PANEL_ROWS) readB = transB ? ReadB.ownColumns : ReadB.ownRows;
  else {
    panels = to.workspace(Math.ceil(n / PANEL) * PANEL * k * 4);
    const panelCount = Math.ceil(n / to.tileColumns);
    to.step(transB ? Code.packColumns : Code.packRows, panelCount, [to.at(b), panels, k, n, bRow]);
  }
  const { rows, columns } = cutProduct(
    to.threads,
    { m, n, k },
    epilogue !== Epilogue.store,
    readB !== ReadB.panels,
  );
  const tile = epilogue === Epilogue.store ? 0 : (rows + 8) * (columns + 2 * PANEL);
  to.scratch(4 * ((rows + 8 + PANEL) * DEPTH + tile));
  to.step(Code.matmul, Math.ceil(m / rows) * Math.ceil(n / columns), [
    to.at(a),
    asMatrix(a)[1] * 4,
    mode,
    panels,
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
  ]);
}

/** Blocks go straight to c where nothing but a bias and one addend is wanted and panels fit. */
function epilogueOf(op: MatmulOp, n: number): Epilogue {
  if (op.attrs.epilogue === "gelu") return Epilogue.gelu;
  if (op.attrs.epilogue === "geluBackward") return Epilogue.geluBackward;
  if (op.in.rowScale || n % PANEL !== 0 || (op.in.residual && op.attrs.accumulate)) return Epilogue.plain;
  return Epilogue.store;
}

/**
 * Rows and columns of a chunk: large enough to reuse what it packs, small enough to keep all threads busy to the end.
 * Costs are in multiply-adds.
 */
function cutProduct(
  threads: number,
  { m, n, k }: { m: number; n: number; k: number },
  tiled: boolean,
  ownPanels: boolean,
): { rows: number; columns: number } {
  const width = Math.ceil(n / PANEL) * PANEL;
  let best = { rows: 20, columns: PANEL }, least = Infinity;
  for (const most of ROWS) {
    const rows = Math.min(most, Math.ceil(m / 20) * 20), rowChunks = Math.ceil(m / rows);
    for (let parts = 1; parts <= width / PANEL; parts++) {
      const columns = Math.ceil(width / parts / PANEL) * PANEL, columnChunks = Math.ceil(width / columns);
      if (tiled && rows * columns > TILE) continue;
      const chunks = rowChunks * columnChunks;
      const packing = PACK_A * m * columnChunks + (ownPanels ? PACK_B : READ_B) * width * rowChunks;
      const total = k * (m * width + packing) + CHUNK * chunks;
      // At the end the other threads wait for about half a chunk.
      const time = total / threads + (threads > 1 ? total / chunks / 2 : 0);
      if (time < least) best = { rows, columns }, least = time;
      if (rows * columns * k < WORK) break;
    }
  }
  return best;
}
