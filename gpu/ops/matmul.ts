// Matrix products: a variant and a split for each shape, the epilogue on the store or on the sum of the splits.
import { matmulExtents } from "../../models/graph/ops/matmul.ts";
import type { OpOf } from "../../models/graph/ops/mod.ts";
import { size } from "../../models/graph/tensor.ts";
import { kernel } from "../kernels/sources.ts";
import { leavesOut, matmulKernel } from "../kernels/matmul.ts";
import { halvesOfProduct, type MatmulShape, SPLIT_STEP } from "../kernels/matmul_tiles.ts";
import type { Lowering } from "../lowering.ts";
import { alignedUnits, slice } from "../tiles.ts";
import { widthOf } from "./elementwise.ts";
import { emitTiles, needsTiles, type Range } from "./tiled_matmul.ts";
import { emitLaneProduct } from "./lane_product.ts";
import { type Ahead, aheadOf, aheadParams, emitAhead } from "./prologue.ts";
import { type Binding, NOTHING } from "../dispatch.ts";

/** Bits of the epilogue, as `epilogue.wgsl` has them. */
const FLAG = { bias: 1, residual: 2, rowScale: 4, accumulate: 8, gelu: 16, keepsPre: 32, geluBackward: 64 };

export function lowerMatmul(l: Lowering, op: OpOf<"matmul">): void {
  const { epilogue, accumulate, transA, transB } = op.attrs;
  const { bias, residual, rowScale } = op.in, extents = matmulExtents(op);
  const pre = op.in.pre ?? op.out.pre;
  const flags = (bias ? FLAG.bias : 0) | (residual ? FLAG.residual : 0) | (rowScale ? FLAG.rowScale : 0) |
    (accumulate ? FLAG.accumulate : 0) | (epilogue === "gelu" ? FLAG.gelu : 0) | (op.out.pre ? FLAG.keepsPre : 0) |
    (epilogue === "geluBackward" ? FLAG.geluBackward : 0);
  const shape = { ...extents, transA, transB, halves: halvesOfProduct(op, l.halves) };
  const rowsPerScale = rowScale ? extents.m / size(rowScale) : 1;
  const ahead = { a: aheadOf(l, op, "a"), b: aheadOf(l, op, "b") };
  const tensors = { a: op.in.a, b: op.in.b, c: op.out.c, residual, pre, bias };
  if (needsTiles(l, tensors)) {
    const scaled = rowScale ? rowsPerScale * alignedUnits([4]) : 1; // a row scale is bound from a multiple of 256 bytes on
    emitTiles(l, shape, tensors, { rowStep: scaled, cutsInner: epilogue !== "gelu", accumulate }, (tile) => {
      const { a, b, c, continues, rows, columns, inner } = tile;
      const scale = rowScale &&
        slice(rowScale, size(rowScale), rows.start / rowsPerScale, Math.ceil(rows.count / rowsPerScale));
      // What is added once is added with the first part of the sum.
      const kept = continues ? flags & ~(FLAG.bias | FLAG.residual) | FLAG.accumulate : flags;
      const slots = [tile.bias ?? NOTHING, tile.residual ?? NOTHING, l.of(scale), tile.pre ?? NOTHING];
      emitProduct(l, tile.shape, [a, b, c], { flags: kept, rowsPerScale, slots }, {
        a: partOf(ahead.a, ...(transA ? [inner, rows] as const : [rows, inner] as const)),
        b: partOf(ahead.b, ...(transB ? [columns, inner] as const : [inner, columns] as const)),
      });
    });
    return;
  }
  const slots = [l.of(bias), l.of(residual), l.of(rowScale), l.of(pre)];
  emitProduct(l, shape, [l.of(op.in.a), l.of(op.in.b), l.of(op.out.c)], { flags, rowsPerScale, slots }, ahead);
}

/** The prologue of the part of an operand that a tile reads. */
function partOf(ahead: Ahead | undefined, rows: Range, columns: Range): Ahead | undefined {
  return ahead && { ...ahead, firstRow: rows.start, firstColumn: columns.start };
}

/** A product of matrices wherever they lie, with a bias or added to what is there. */
export function emitPlainProduct(
  l: Lowering,
  shape: MatmulShape,
  operands: readonly [a: Binding, b: Binding, c: Binding],
  { bias, accumulate = false }: { bias?: Binding; accumulate?: boolean } = {},
): void {
  const flags = (bias ? FLAG.bias : 0) | (accumulate ? FLAG.accumulate : 0);
  emitProduct(l, shape, operands, { flags, rowsPerScale: 1, slots: [bias ?? NOTHING, NOTHING, NOTHING, NOTHING] });
}

/** What happens to a product before it is stored; slots hold bias, residual, rowScale and pre. */
interface Epilogue {
  readonly flags: number;
  readonly rowsPerScale: number;
  readonly slots: readonly Binding[];
}

/** Storage bindings that every device has. */
const BINDINGS = 8;

/** Whether a kernel can bind prologues beside what rides on the store. */
function bindable({ a, b }: { readonly a?: Ahead; readonly b?: Ahead }, flags: number): boolean {
  const lean = leavesOut({ prologueA: a?.kind, prologueB: b?.kind });
  if (lean && (flags & (FLAG.residual | FLAG.rowScale)) !== 0) return false;
  return (lean ? 5 : 7) + (a?.slots.length ?? 0) + (b?.slots.length ?? 0) <= BINDINGS;
}

function emitProduct(
  l: Lowering,
  shape: MatmulShape,
  [storedA, storedB, c]: readonly [Binding, Binding, Binding],
  { flags, rowsPerScale, slots }: Epilogue,
  prologues: { readonly a?: Ahead; readonly b?: Ahead } = {},
): void {
  const { m, n, k, transA, transB } = shape;
  const gelu = (flags & (FLAG.gelu | FLAG.geluBackward)) !== 0;
  const kinds = { prologueA: prologues.a?.kind, prologueB: prologues.b?.kind };
  const { tile, splits: wanted, apart = false } = l.chooseMatmul({ ...shape, ...kinds }, l.limits);
  // What operands go through, as they are staged, or before.
  const before = tile === "lanes" || apart || !bindable(prologues, flags), ahead = before ? {} : prologues;
  const through = (x: Binding, of: Ahead | undefined, rows: number, columns: number) =>
    before && of ? emitAhead(l, of, x, rows, columns) : x;
  const a = transA ? through(storedA, prologues.a, k, m) : through(storedA, prologues.a, m, k);
  const b = transB ? through(storedB, prologues.b, n, k) : through(storedB, prologues.b, k, n);
  const width = widthOf(n);
  const emitEpilogue = (partial: Binding, splits: number) =>
    l.emit(
      kernel("matmul_split_sum", { width, with: ["math", "epilogue_slots", "epilogue"], constants: { WITH_GELU: 1 } }),
      [partial, c, ...slots],
      { u: [m * n / width, n / width, splits, flags, rowsPerScale] },
      Math.ceil(m * n / width / 256),
    );
  if (tile === "lanes") {
    const to = flags === 0 ? c : l.scratch(m * n * 4);
    const placeA = transA ? { row: 1, column: m } : { row: k, column: 1 };
    const placeB = transB ? { row: 1, column: k } : { row: n, column: 1 };
    emitLaneProduct(l, { m, n, k }, [a, placeA], [b, placeB], [to, { row: n, column: 1 }]);
    if (flags !== 0) emitEpilogue(to, 1);
    return;
  }
  // Whole steps a split, and no split without work.
  const perSplit = Math.max(SPLIT_STEP, Math.ceil(Math.ceil(k / wanted) / SPLIT_STEP) * SPLIT_STEP);
  const splits = Math.max(1, Math.ceil(k / perSplit));
  const begins = [ahead.a?.firstColumn ?? 0, ahead.b?.firstColumn ?? 0];
  const vector = widthOf(n, transA ? m : k, ...(transB ? [k] : []), ...begins) === 4;
  const tilesM = Math.ceil(m / tile.bm), tilesN = Math.ceil(n / tile.bn);
  const u = [m, n, k, flags, rowsPerScale, tilesM, tilesN, splits, perSplit];
  u.push(...aheadParams(ahead.a), ...aheadParams(ahead.b));
  const emit = (to: Binding, split: boolean, [bias, residual, rowScale, pre]: readonly Binding[]) => {
    const staged = before ? {} : kinds;
    const variant = matmulKernel({ tile, transA, transB, vector, gelu: gelu && !split, split, ...staged });
    const rest = leavesOut(staged) ? [bias, pre] : [bias, residual, rowScale, pre];
    const bindings = [a, b, to, ...rest, ...ahead.a?.slots ?? [], ...ahead.b?.slots ?? []];
    l.emit(variant, bindings, { u }, tilesM * tilesN * splits);
  };
  if (splits === 1) {
    emit(c, false, slots);
    return;
  }
  const partial = l.scratch(splits * m * n * 4);
  emit(partial, true, [NOTHING, NOTHING, NOTHING, NOTHING]);
  emitEpilogue(partial, splits);
}
