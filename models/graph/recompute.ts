// Trades time for memory: activations that the backward pass computes again instead of finding them kept.
import { inputsOf, outputsOf, type Program, tensorsOf } from "./program.ts";
import type { Op } from "./ops/mod.ts";
import type { GeluOp } from "./ops/elementwise.ts";
import type { MatmulOp } from "./ops/matmul.ts";
import { isCollective } from "./ops/collective.ts";
import { rootOf, type Tensor } from "./tensor.ts";

/** What is computed a second time. Values and their order of summation are the same, so no bit of a result depends on it. */
export interface Recomputation {
  /** Normalised rows, in the whole program: from what they normalise, at the cost of reading it once more. */
  readonly rows?: boolean;
  /** GELUs that rode on a product, from the argument that is kept anyway. Not for backends that round the argument when they store it. */
  readonly gelus?: boolean;
  /**
   * This share of the segments (see `Program.segment`), from what entered each: another forward pass of theirs. The first ones,
   * whose turn comes last in the backward pass: by then the room of the others is free.
   */
  readonly segments?: number;
}

/** Kinds of operation that cost no more than reading their operand. */
const LIGHT: ReadonlySet<string> = new Set(["layerNorm", "gelu"]);

/**
 * Rewrites a program whose first `forward` operations are a forward pass and whose others are its backward pass: what is not to be
 * kept is computed again right before its first use in the backward pass, from what is kept.
 *
 * @param from the first operation that may be run twice
 */
export function recompute(program: Program, from: number, forward: number, choice: Recomputation): void {
  const backward = program.ops.splice(forward);
  const dropped = chooseDropped(program, from, backward, choice);
  const copies = new Map<number, Tensor>();
  const again = (t: Tensor): Tensor => {
    const op = dropped.get(t.id);
    if (!op) return t;
    const copy = copies.get(t.id);
    if (copy) return copy;
    const pre = choice.gelus ? geluArgument(op, t) : undefined;
    if (pre) {
      const y = program.activation(`${t.name} again`, t.shape);
      copies.set(t.id, y);
      program.emit<GeluOp>({ kind: "gelu", in: { x: again(pre) }, out: { y }, attrs: {} });
      return y;
    }
    const made = { ...op, in: mapSlots(op.in, again) };
    const out = mapSlots(op.out, (output) => program.activation(`${output.name} again`, output.shape));
    for (const [slot, output] of Object.entries(op.out) as [string, Tensor | undefined][]) {
      if (output && !copies.has(output.id)) copies.set(output.id, (out as Record<string, Tensor>)[slot]);
    }
    program.emit({ ...made, out } as Op);
    return copies.get(t.id)!;
  };
  for (const op of backward) program.emit({ ...op, in: mapSlots(op.in, again) } as Op);
}

/** Activations not to be kept, with the operation that makes each. */
function chooseDropped(
  program: Program,
  from: number,
  backward: readonly Op[],
  { rows = false, gelus = false, segments = 0 }: Recomputation,
): Map<number, Op> {
  const { ops } = program;
  const makers = repeatable(ops, from, backward);
  const lastReader = new Map<number, number>();
  ops.forEach((op, i) => inputsOf(op).forEach((t) => lastReader.set(t.id, i)));
  const all = program.segments.filter(([first]) => first >= from);
  const chosen = all.slice(0, Math.ceil(segments * all.length));
  const dropped = new Map<number, Op>();
  for (const [id, { op, at, output }] of makers) {
    // What leaves a segment is kept: it is what the next one is computed from.
    const inside = chosen.some(([first, end]) => at >= first && at < end && (lastReader.get(id) ?? at) < end);
    if (inside || rows && LIGHT.has(op.kind) || gelus && geluArgument(op, output)) dropped.set(id, op);
  }
  return dropped;
}

interface Maker {
  readonly op: Op;
  readonly at: number;
  readonly output: Tensor;
}

/** Activations that running one operation again would make again: it writes nothing else, and what it reads is still there. */
function repeatable(forward: readonly Op[], from: number, backward: readonly Op[]): Map<number, Maker> {
  const writes = new Map<number, number>();
  const windows = new Set<number>();
  const changes = new Set<number>(backward.flatMap((op) => outputsOf(op).map((t) => rootOf(t).id)));
  for (const op of [...forward, ...backward]) {
    for (const t of tensorsOf(op)) if (t.base && t.role === "activation") windows.add(t.base.id);
  }
  for (const op of forward) {
    for (const t of outputsOf(op)) writes.set(rootOf(t).id, (writes.get(rootOf(t).id) ?? 0) + 1);
  }
  const makers = new Map<number, Maker>();
  forward.forEach((op, at) => {
    if (at < from || isCollective(op)) return; // what is repeated may differ between ranks, what they exchange may not
    const whole = outputsOf(op).every((t) =>
      t.role === "activation" && !windows.has(t.id) && writes.get(t.id) === 1 && !changes.has(t.id)
    );
    const lasting = inputsOf(op).every((t) => {
      const root = rootOf(t);
      if (changes.has(root.id)) return false;
      return root.role === "activation" || !writes.has(root.id);
    });
    if (whole && lasting) { for (const output of outputsOf(op)) makers.set(output.id, { op, at, output }); }
  });
  return makers;
}

/** The stored argument of the GELU whose result `t` is, if `op` is a product that applied one last. */
function geluArgument(op: Op, t: Tensor): Tensor | undefined {
  if (op.kind !== "matmul") return undefined;
  const { in: { rowScale, residual }, out: { c, pre }, attrs } = op as MatmulOp;
  return attrs.epilogue === "gelu" && !attrs.accumulate && !rowScale && !residual && t.id === c.id ? pre : undefined;
}

function mapSlots(slots: object, change: (t: Tensor) => Tensor): Record<string, Tensor | undefined> {
  const entries = Object.entries(slots as Record<string, Tensor | undefined>);
  return Object.fromEntries(entries.map(([slot, t]) => [slot, t && change(t)]));
}
