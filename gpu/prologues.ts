// Moves layer norms, GELUs and row factors into the products that read them, so that what they make is never stored.
import { matmulExtents, type MatmulOp, type Prologue } from "../models/graph/ops/matmul.ts";
import type { LayerNormOp } from "../models/graph/ops/norm.ts";
import type { Op } from "../models/graph/ops/mod.ts";
import { asMatrix, inputsOf, outputsOf, Program } from "../models/graph/program.ts";
import { rootOf, type Tensor, tensor } from "../models/graph/tensor.ts";

/** Which operations move into products: none, those whose bytes are worth more than what products then compute, or all that can. */
export type PrologueUse = "none" | "saving" | "all";

/** {@link PrologueUse} by name. */
export const PROLOGUE_USES: readonly PrologueUse[] = ["none", "saving", "all"];

/**
 * A product computes the GELU of an operand once for every tile that reads it, of so many columns, in about so many instructions.
 * GPUs have time for 7 (those of data centres) to 40 (others) while they move a byte; a byte that is not kept is worth some.
 */
const TILE = 128, GELU_INSTRUCTIONS = 20, INSTRUCTIONS_PER_BYTE = 25;

/** What becomes of an operand: its tensor, and what it goes through as it is read. */
interface Source {
  readonly kind: Prologue;
  readonly x: Tensor;
  readonly slots: readonly Tensor[];
}

/** An operation whose result can be made as it is read. */
interface Maker {
  readonly at: number;
  readonly y: Tensor;
  readonly source: Source;
  /** What remains of the operation; nothing if undefined. */
  readonly rest?: Op;
}

/**
 * The same program with operations moved into all their readers, where those are products (or, for row factors, sums of columns) and
 * what they are made of is still there. Its values are the same, to the bit but for two: a sum of columns may round factor and sum at
 * once, and f16 keeps neither the rounded rows of a norm nor the rounded GELU. Unread outputs must have been dropped.
 */
export function movePrologues(program: Program, use: PrologueUse): Program {
  if (use === "none") return program;
  const found = new Map<number, Maker>();
  const uses = usesOf(program);
  const normalizing = new Set<number>(); // one layer norm a product
  program.ops.forEach((op, at) => {
    const maker = makerOf(op, at);
    if (!maker || use === "saving" && !saves(maker, uses) || !canMove(program, maker, uses)) return;
    const readers = uses.get(maker.y.id)!.readers.map((reader) => reader.at);
    if (maker.source.kind === "layerNorm") {
      if (readers.some((reader) => normalizing.has(reader)) || new Set(readers).size < readers.length) return;
      readers.forEach((reader) => normalizing.add(reader));
    }
    found.set(maker.y.id, maker);
  });
  if (found.size === 0) return program;
  const rests = new Map([...found.values()].map(({ at, rest }) => [at, rest]));
  const result = new Program(program.name);
  for (const id of program.gradients) result.gradients.add(id);
  program.ops.forEach((op, at) => {
    const kept = rests.has(at) ? rests.get(at) : op;
    if (kept) result.emit(moved(kept, found));
  });
  return result;
}

/** How a tensor that owns its buffer is used. */
interface Use {
  readonly writers: number[];
  readonly readers: { readonly at: number; readonly op: Op; readonly slot: string }[];
  viewed: boolean;
}

function usesOf(program: Program): Map<number, Use> {
  const uses = new Map<number, Use>();
  const of = (t: Tensor) => {
    const { id } = rootOf(t), use = uses.get(id) ?? { writers: [], readers: [], viewed: false };
    if (t.base) use.viewed = true;
    uses.set(id, use);
    return use;
  };
  program.ops.forEach((op, at) => {
    for (const [slot, t] of Object.entries(op.in) as [string, Tensor | undefined][]) {
      if (t) of(t).readers.push({ at, op, slot });
    }
    for (const t of outputsOf(op)) of(t).writers.push(at);
  });
  return uses;
}

/** What an operation makes, if a product could make it as it reads. */
function makerOf(op: Op, at: number): Maker | undefined {
  switch (op.kind) {
    case "layerNorm": {
      const { x, weight, bias } = op.in, { y } = op.out;
      if (!y) return undefined;
      // Inference keeps no statistics; a product needs them.
      const stats = op.out.stats ?? tensor(`${y.name}.stats`, [asMatrix(x)[0], 2], "activation");
      const rest: LayerNormOp = { ...op, out: { stats } };
      return { at, y, source: { kind: "layerNorm", x, slots: [stats, weight, bias] }, rest };
    }
    case "gelu":
      return { at, y: op.out.y, source: { kind: "gelu", x: op.in.x, slots: [] } };
    case "scaleRows":
      return { at, y: op.out.y, source: { kind: "scaleRows", x: op.in.x, slots: [op.in.scale] } };
    case "matmul": {
      // A product that keeps the argument of its GELU for the backward pass need not store the result beside it.
      const { residual, rowScale } = op.in, { c, pre } = op.out;
      if (op.attrs.epilogue !== "gelu" || !pre || residual || rowScale || op.attrs.accumulate) return undefined;
      const rest: MatmulOp = { ...op, out: { c: pre }, attrs: { ...op.attrs, epilogue: "none" } };
      return { at, y: c, source: { kind: "gelu", x: pre, slots: [] }, rest };
    }
  }
}

/** Whether not storing a result is worth what products pay for making it. A norm and a factor cost them next to nothing. */
function saves({ y, rest, source: { kind } }: Maker, uses: ReadonlyMap<number, Use>): boolean {
  if (kind !== "gelu") return true;
  let times = 0;
  for (const { op, slot } of uses.get(y.id)!.readers) {
    if (op.kind !== "matmul") return false;
    const { m, n } = matmulExtents(op);
    times += Math.ceil((slot === "a" ? n : m) / TILE);
  }
  // A GELU of its own reads and writes an element; one that rides on a product writes it.
  const bytes = rest === undefined ? 8 : 4;
  return GELU_INSTRUCTIONS * (times - 1) <= INSTRUCTIONS_PER_BYTE * bytes;
}

/** Whether every reader takes the operation over, and finds unchanged what it works on. */
function canMove(
  { ops }: Program,
  { at, y, source: { kind, x, slots } }: Maker,
  uses: ReadonlyMap<number, Use>,
): boolean {
  if (y.role !== "activation" || y.base || y.dtype !== "f32") return false;
  const { writers, readers, viewed } = uses.get(y.id)!;
  if (viewed || writers.length !== 1) return false;
  if (readers.length === 0) return ops[at].kind === "matmul"; // of a product computed again, only the argument is read
  const taken = readers.every(({ op, slot, at: reader }) => {
    if (reader < at) return false;
    if (op.kind === "columnSum") return kind === "scaleRows" && !op.in.scale;
    if (op.kind !== "matmul" || slot !== "a" && slot !== "b") return false;
    return op.attrs.prologueA === undefined && op.attrs.prologueB === undefined;
  });
  if (!taken) return false;
  const last = Math.max(...readers.map((reader) => reader.at));
  const needed = [x, ...slots].map((t) => rootOf(t).id);
  for (let i = at + 1; i <= last; i++) {
    if (outputsOf(ops[i]).some((t) => needed.includes(rootOf(t).id))) return false;
  }
  return !inputsOf(ops[at]).some((t) => rootOf(t).id === y.id); // nor may it work in place
}

/** The operation with what it reads replaced by what that is made of. */
function moved(op: Op, found: ReadonlyMap<number, Maker>): Op {
  if (op.kind === "columnSum") {
    const source = found.get(op.in.x.id)?.source;
    return source ? { ...op, in: { x: source.x, scale: source.slots[0] } } : op;
  }
  if (op.kind !== "matmul") return op;
  const a = found.get(op.in.a.id)?.source, b = found.get(op.in.b.id)?.source;
  if (!a && !b) return op;
  const of = (operand: "a" | "b", source: Source | undefined) => {
    if (!source) return {};
    const [rows, weight, bias] = source.slots;
    return { [operand]: source.x, [`${operand}Rows`]: rows, [`${operand}Weight`]: weight, [`${operand}Bias`]: bias };
  };
  return {
    ...op,
    in: { ...op.in, ...of("a", a), ...of("b", b) },
    attrs: { ...op.attrs, ...a ? { prologueA: a.kind } : {}, ...b ? { prologueB: b.kind } : {} },
  };
}
