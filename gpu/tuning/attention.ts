// Times the kernels that an attention can take, checks each numerically, and tells the fastest.
import { attention, type AttentionBackwardOp } from "../../models/graph/ops/attention.ts";
import { Program } from "../../models/graph/program.ts";
import { size, type Tensor } from "../../models/graph/tensor.ts";
import { type AttentionChoice, attentionChoiceName, type AttentionShape } from "../attention_choice.ts";
import { compareKernels } from "./compare.ts";
import { LARGEST_OPERAND, type TuningOperand, type TuningOperands, tuningValue } from "./operands.ts";

/** What one comparison of an attention's kernels found. */
export interface AttentionTuning {
  /** The attention. */
  readonly shape: AttentionShape;
  /** The fastest kernels, such as `5x2`, `single`, `stored`. */
  readonly chosen: string;
  /** Microseconds of each that gave right results. */
  readonly micros: Readonly<Record<string, number>>;
  /** Those whose results were wrong on this driver. */
  readonly wrong: readonly string[];
  /** Whether time was up before all were looked at. */
  readonly unfinished: boolean;
}

/** Queries and keys that are computed again on the host. */
const SAMPLES = 3;

/**
 * Times each choice on one shape, of the type that queries, keys and values are kept as. Kernels whose results are off at any place
 * looked at may not win.
 *
 * @param until when to look at no further choice, by `performance.now()`; one that is right is looked for in any case
 * @throws {OutOfMemoryError} if the device has no room for the operands
 */
export async function compareAttention(
  operands: TuningOperands,
  whole: AttentionShape,
  choices: readonly AttentionChoice[],
  until = Infinity,
): Promise<AttentionTuning> {
  const { backend } = operands;
  const D = whole.heads * whole.width;
  const images = Math.max(1, Math.min(whole.images, Math.floor(LARGEST_OPERAND / (whole.tokens * 3 * D * 4))));
  const shape = { ...whole, images }, { heads, tokens, queries, half } = shape;
  const qkv = operands.of("qkv", [images * tokens, 3 * D], { half, seed: 1 });
  const dy = operands.of("dy", [images * queries, D], { seed: 2 }), y = operands.of("y", dy.tensor.shape, { half });
  const lse = operands.of("lse", [images, heads, queries]), dqkv = operands.of("dqkv", qkv.tensor.shape);
  const kept = operands.halvesOf(qkv, y);
  const forward = new Program("tuning attention");
  attention(forward, qkv.tensor, { images, tokens, heads, queries });
  forward.ops[0] = { ...forward.ops[0], out: { y: y.tensor, lse: lse.tensor } } as typeof forward.ops[0];
  const backward = new Program("tuning attention backward");
  backward.emit<AttentionBackwardOp>({
    kind: "attentionBackward",
    in: { dy: dy.tensor, qkv: qkv.tensor, y: y.tensor, lse: lse.tensor },
    out: { dqkv: dqkv.tensor },
    attrs: { images, tokens, heads, queries },
  });
  if (shape.backward) {
    const executable = await backend.compileWith(forward, { kept });
    operands.fill();
    await executable.run();
    executable.dispose();
  }
  const looked = (t: Tensor) => size(t) / images; // the first image
  const byName = new Map(choices.map((choice) => [attentionChoiceName(choice), choice]));
  const comparison = await compareKernels(operands, [...byName.keys()], {
    what: `every attention kernel for ${tokens} tokens`,
    compile: (name) => {
      const choice = byName.get(name)!;
      return backend.compileWith(shape.backward ? backward : forward, { attention: () => choice, kept });
    },
    spoil: () => {
      for (const result of shape.backward ? [dqkv] : [y, lse]) operands.spoil(result, 0, looked(result.tensor));
    },
    isRight: () => isRight(operands, shape, { y, lse, dqkv }),
  }, until);
  return { shape: whole, ...comparison };
}

/** Compares some queries and keys of the first and the last head with float64 sums. */
async function isRight(
  operands: TuningOperands,
  { backward, heads, tokens, queries, width, half }: AttentionShape,
  { y, lse, dqkv }: { y: TuningOperand; lse: TuningOperand; dqkv: TuningOperand },
): Promise<boolean> {
  const D = heads * width, scale = 1 / Math.sqrt(width);
  const first = (t: TuningOperand, length: number) => operands.read(t, 0, length);
  const gotY = await first(y, queries * D), gotLse = await first(lse, heads * queries);
  const gradients = backward ? await first(dqkv, tokens * 3 * D) : undefined;
  // Sums of at most `tokens` numbers near 1, each rounded; y may be kept in halves, which a driver may truncate.
  const near = (got: number, truth: number, rounding = 0) =>
    Math.abs(got - truth) <= 1e-5 + (2e-7 * Math.sqrt(tokens) + rounding) * Math.abs(truth);
  const picks = (
    n: number,
  ) => [...new Set(Array.from({ length: SAMPLES }, (_, i) => Math.floor(i * (n - 1) / (SAMPLES - 1))))];
  const at = (part: number, token: number, head: number, c: number) =>
    tuningValue(token * 3 * D + part * D + head * width + c, 1, half);
  const dyAt = (query: number, head: number, c: number) => tuningValue(query * D + head * width + c, 2);
  const columns = Array.from({ length: width }, (_, c) => c);
  const dot = (f: (c: number) => number, g: (c: number) => number) => columns.reduce((sum, c) => sum + f(c) * g(c), 0);
  for (const head of new Set([0, heads - 1])) {
    const score = (i: number, j: number) => scale * dot((c) => at(0, i, head, c), (c) => at(1, j, head, c));
    const delta = (i: number) => dot((c) => dyAt(i, head, c), (c) => gotY[i * D + head * width + c]);
    const slope = (i: number, j: number, p: number) =>
      scale * p * (dot((c) => dyAt(i, head, c), (c) => at(2, j, head, c)) - delta(i));
    for (const i of picks(queries)) {
      const scores = Float64Array.from({ length: tokens }, (_, j) => score(i, j));
      const mass = scores.reduce((sum, s) => sum + Math.exp(s), 0);
      const probs = scores.map((s) => Math.exp(s) / mass);
      if (!near(gotLse[head * queries + i], Math.log(mass))) return false;
      const slopes = gradients && probs.map((p, j) => slope(i, j, p));
      for (const c of columns) {
        const value = probs.reduce((sum, p, j) => sum + p * at(2, j, head, c), 0);
        if (!near(gotY[i * D + head * width + c], value, half ? 2 ** -10 : 0)) return false;
        if (!slopes) continue;
        const dq = slopes.reduce((sum, s, j) => sum + s * at(1, j, head, c), 0);
        if (!near(gradients[i * 3 * D + head * width + c], dq)) return false;
      }
    }
    for (const j of gradients ? picks(tokens) : []) {
      const probs = Float64Array.from(
        { length: queries },
        (_, i) => Math.exp(score(i, j) - gotLse[head * queries + i]),
      );
      const slopes = probs.map((p, i) => slope(i, j, p));
      for (const c of columns) {
        const dk = slopes.reduce((sum, s, i) => sum + s * at(0, i, head, c), 0);
        const dv = probs.reduce((sum, p, i) => sum + p * dyAt(i, head, c), 0);
        const place = j * 3 * D + head * width + c;
        if (!near(gradients![place + D], dk) || !near(gradients![place + 2 * D], dv)) return false;
      }
    }
  }
  return true;
}
