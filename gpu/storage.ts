// What `precision: "f16"` keeps in halves: activations of the forward pass that only products, attention and GELU meet, and copies of weights.
import type { Precision } from "../models/graph/backend.ts";
import { inputsOf, outputsOf, Program } from "../models/graph/program.ts";
import { type Op, type OpKind, ruleOf } from "../models/graph/ops/mod.ts";
import { matmulExtents } from "../models/graph/ops/matmul.ts";
import { byteLength, rootOf, size, type Tensor, tensor, VIEW_ALIGNMENT } from "../models/graph/tensor.ts";

/** A program, and which of its activations are kept as f16. */
export interface Stored {
  readonly program: Program;
  /** Ids of the tensors that own the halves. */
  readonly halves: ReadonlySet<number>;
}

/** Bytes of an element that is kept as f16. */
export const HALF_BYTES = 2;

/**
 * Slots whose kernels load and round halves without harm: operands and results of products, what attention reads and writes, what
 * GELU's derivative is taken at. Every tensor that touches another slot stays f32: the residual stream (sums of many blocks), row
 * statistics, everything from the bottleneck on (logits over a temperature of 0.04 need more than 11 bits).
 */
const SLOTS: { readonly [K in OpKind]?: { readonly in?: readonly string[]; readonly out?: readonly string[] } } = {
  matmul: { in: ["a", "b", "pre"], out: ["c", "pre"] },
  gelu: { in: ["x"], out: ["y"] },
  geluBackward: { in: ["x"] },
  layerNorm: { out: ["y"] },
  weightNorm: { out: ["weight"] },
  attention: { in: ["qkv"], out: ["y"] },
  attentionBackward: { in: ["qkv", "y"] },
  attentionProbs: { in: ["qkv"] },
  patchify: { out: ["patches"] },
  augment: { out: ["crops"] },
  assembleTokens: { in: ["patches"] },
  copy: { in: ["x"], out: ["y"] },
};

/** Rows that must meet a weight before a copy of it is worth making. */
const ENOUGH_ROWS = 128;

/** Decides what a program keeps in halves. Its unread outputs must have been dropped. */
export function storedProgram(program: Program, precision: Precision): Stored {
  if (precision === "f32") return { program, halves: new Set() };
  const halves = chooseHalves(program);
  return { program: copyWeights(program, halves), halves };
}

/** Bytes of a tensor that owns its buffer. */
export function storedBytes(root: Tensor, halves: ReadonlySet<number>): number {
  return halves.has(root.id) ? HALF_BYTES * size(root) : byteLength(root);
}

/**
 * The same program with products reading copies of their weights, which are added to `halves`. A copy is made before its first
 * reader, and again after the weight was written: all crops and the backward pass share it. The masters stay f32.
 */
function copyWeights(program: Program, halves: Set<number>): Program {
  const rows = rowsOfWeights(program, halves);
  const result = new Program(program.name);
  const copies = new Map<number, { copy: Tensor; root: number }>();
  for (const op of program.ops) {
    let placed = op;
    const weight = weightOf(op);
    if (weight && (rows.get(weight.id) ?? 0) >= ENOUGH_ROWS) {
      let made = copies.get(weight.id);
      if (!made) {
        made = { copy: tensor(`half(${weight.name})`, weight.shape, "activation"), root: rootOf(weight).id };
        copies.set(weight.id, made);
        halves.add(made.copy.id);
        result.emit<Op>({ kind: "copy", in: { x: weight }, out: { y: made.copy }, attrs: {} });
      }
      placed = { ...op, in: { ...op.in, b: made.copy } } as Op;
    }
    result.emit(placed);
    for (const t of outputsOf(op)) {
      for (const [id, { root }] of copies) if (root === rootOf(t).id) copies.delete(id);
    }
  }
  return result;
}

/** The parameter a product reads as its second operand. */
function weightOf(op: Op): Tensor | undefined {
  return op.kind === "matmul" && op.in.b.role === "param" ? op.in.b : undefined;
}

/** Rows in halves that all products of the program together bring to each weight. */
function rowsOfWeights(program: Program, halves: ReadonlySet<number>): Map<number, number> {
  const rows = new Map<number, number>();
  for (const op of program.ops) {
    const weight = weightOf(op);
    if (!weight || op.kind !== "matmul" || !halves.has(rootOf(op.in.a).id)) continue;
    rows.set(weight.id, (rows.get(weight.id) ?? 0) + matmulExtents(op).m);
  }
  return rows;
}

/** Activations that no slot refuses. Gradients stay f32: they live briefly, so they cost little, and need no loss scaling then. */
function chooseHalves(program: Program): Set<number> {
  const chosen = new Map<number, boolean>();
  const gradients = new Set(program.gradients);
  for (const op of program.ops) {
    const backward = inputsOf(op).some((t) => gradients.has(rootOf(t).id));
    for (const direction of ["in", "out"] as const) {
      for (const [slot, t] of Object.entries(op[direction]) as [string, Tensor | undefined][]) {
        if (t?.role !== "activation") continue;
        const { id } = rootOf(t);
        if (direction === "out" && backward) gradients.add(id); // what is made of gradients is one
        chosen.set(id, chosen.get(id) !== false && !gradients.has(id) && accepts(op, direction, slot, t));
      }
    }
  }
  return new Set([...chosen].filter(([, half]) => half).map(([id]) => id));
}

function accepts(op: Op, direction: "in" | "out", slot: string, t: Tensor): boolean {
  if (t.dtype !== "f32" || (t.offset ?? 0) * HALF_BYTES % VIEW_ALIGNMENT !== 0) return false;
  if (direction === "out" && ruleOf(op).readsOutput?.(op).includes(slot)) return false; // a sum that is added to
  if (op.kind === "augment" && op.attrs.layout === "levels") return false;
  if (op.kind === "copy" && op.out.y.role !== "activation") return false; // what the host reads
  return SLOTS[op.kind]?.[direction]?.includes(slot) ?? false;
}
