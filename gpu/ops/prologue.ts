// What an operand goes through on its way into a product: as parameters and bindings of the product, or stored first.
import { type MatmulOp, operandPrologue, type Prologue } from "../../models/graph/ops/matmul.ts";
import { asMatrix } from "../../models/graph/program.ts";
import { size } from "../../models/graph/tensor.ts";
import { kernel } from "../kernels/sources.ts";
import type { Binding } from "../dispatch.ts";
import type { Lowering } from "../lowering.ts";
import { widthOf } from "./elementwise.ts";

/** A prologue of an operand, or of the part of it that begins at a row and a column of the stored matrix. */
export interface Ahead {
  readonly kind: Prologue;
  /** Statistics or factors of rows, weights and biases of columns, whole: their indices begin at firstRow and firstColumn. */
  readonly slots: readonly Binding[];
  /** Of the whole matrix. */
  readonly rows: number;
  readonly columns: number;
  /** Rows that share a factor. */
  readonly perFactor: number;
  readonly firstRow: number;
  readonly firstColumn: number;
}

/** The prologue of an operand, if it has one. */
export function aheadOf(l: Lowering, op: MatmulOp, operand: "a" | "b"): Ahead | undefined {
  const prologue = operandPrologue(op, operand);
  if (!prologue) return undefined;
  const { kind, rows: ofRows, weight, bias } = prologue;
  const [rows, columns] = asMatrix(op.in[operand]);
  const slots = [ofRows, weight, bias].filter((t) => t !== undefined).map((t) => l.of(t));
  const perFactor = kind === "scaleRows" ? rows / size(ofRows!) : 1;
  return { kind, slots, rows, columns, perFactor, firstRow: 0, firstColumn: 0 };
}

/** Parameters in the order of `matmul_prologue.ts`. */
export function aheadParams(ahead: Ahead | undefined): number[] {
  if (!ahead) return [];
  const { kind, rows, columns, perFactor, firstRow, firstColumn } = ahead;
  if (kind === "scaleRows") return [firstRow, rows - 1, perFactor];
  return kind === "layerNorm" ? [firstRow, rows - 1, firstColumn, columns - 1] : [];
}

/** Stores what becomes of an operand, `rows` × `columns` of the stored matrix from `x` on, in scratch space. */
export function emitAhead(l: Lowering, ahead: Ahead, x: Binding, rows: number, columns: number): Binding {
  const { kind, slots, perFactor, firstRow, firstColumn } = ahead;
  const y = l.scratch(4 * rows * columns);
  const width = widthOf(columns, firstColumn), count = rows * columns / width, groups = Math.ceil(count / 256);
  const ofRow = columns / width;
  switch (kind) {
    case "gelu":
      l.emit(kernel("gelu", { width, with: ["math"] }), [x, y], { u: [count] }, groups);
      break;
    case "scaleRows":
      l.emit(kernel("scale_rows", { width }), [x, ...slots, y], {
        u: [count, perFactor * ofRow, firstRow * ofRow],
      }, groups);
      break;
    case "layerNorm":
      l.emit(kernel("normalize_rows", { width, with: ["normalized"] }), [x, ...slots, y], {
        u: [count, ofRow, firstRow, firstColumn / width],
      }, groups);
  }
  return y;
}
