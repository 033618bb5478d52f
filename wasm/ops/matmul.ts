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

/**
 * How kernels/matmul.ts reads a. Packed rows pay for themselves from a few panels on: the inner loop then has one pointer
 * instead of one a row (87 against 80 GFLOP/s), and rows a power of two apart do not evict one another.
 */
enum ReadA {
  direct,
  packRows,
  packColumns,
}

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

  // Few rows do not pay for packing b, unless it must be transposed.
  const raw = !transB && m <= 24;
  let panels = to.at(b);
  if (!raw) {
    panels = to.workspace(Math.ceil(n / PANEL) * PANEL * k * 4);
    const panelCount = Math.ceil(n / to.tileColumns);
    const stride = asMatrix(b)[1] * 4;
    to.step(transB ? Code.packColumns : Code.packRows, panelCount, [to.at(b), panels, k, n, stride]);
  }
  const { rows, columns } = cutProduct(to.threads, m, n, k, epilogue !== Epilogue.store);
  to.scratch((rows + 8) * DEPTH * 4 + (rows + 8) * (columns + 2 * PANEL) * 4);
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
    raw ? n * 4 : 0,
  ]);
}

/** Blocks go straight to c where nothing but a bias and one addend is wanted and panels fit. */
function epilogueOf(op: MatmulOp, n: number): Epilogue {
  if (op.attrs.epilogue === "gelu") return Epilogue.gelu;
  if (op.attrs.epilogue === "geluBackward") return Epilogue.geluBackward;
  if (op.in.rowScale || n % PANEL !== 0 || (op.in.residual && op.attrs.accumulate)) return Epilogue.plain;
  return Epilogue.store;
}

/** Rows and columns of a chunk: large enough to reuse what it reads, small enough to keep all threads busy. */
function cutProduct(
  threads: number,
  m: number,
  n: number,
  k: number,
  tiled: boolean,
): { rows: number; columns: number } {
  const width = Math.ceil(n / PANEL) * PANEL;
  let best = { rows: 20, columns: PANEL, cost: Infinity };
  for (const most of ROWS) {
    const rows = Math.min(most, Math.ceil(m / 20) * 20);
    for (let parts = 1; parts <= width / PANEL; parts++) {
      const columns = Math.ceil(width / parts / PANEL) * PANEL;
      if (tiled && rows * columns > 1 << 16) continue; // the tile should stay in L2
      const chunks = Math.ceil(m / rows) * Math.ceil(width / columns);
      if (parts > 1 && rows * columns * k < WORK) break;
      // Rounds of chunks that the slowest thread works through, each reading its rows and its panels.
      const rounds = Math.ceil(chunks / threads);
      const cost = rounds * (Math.min(rows, m) * columns * k + 12 * k * (Math.min(rows, m) + columns) + 20000);
      // Without a few chunks for each thread, a disturbed one keeps the others waiting.
      const penalty = threads > 1 && chunks < 4 * threads ? 1 + 0.06 * (4 * threads - chunks) / threads : 1;
      if (cost * penalty < best.cost) best = { rows, columns, cost: cost * penalty };
    }
  }
  return best;
}
