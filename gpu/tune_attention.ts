// Times the kernels that an attention can take, checks each numerically, and tells the fastest.
import { attention, type AttentionBackwardOp } from "../models/graph/ops/attention.ts";
import { Program } from "../models/graph/program.ts";
import { type Tensor, tensor, view } from "../models/graph/tensor.ts";
import { type AttentionChoice, attentionChoiceName, type AttentionShape } from "./attention_choice.ts";
import { fillForTuning, LARGEST_OPERAND, timeOf, tuningValue } from "./autotune.ts";
import type { WebGpuBackend } from "./backend.ts";

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
}

/** Queries and keys that are computed again on the host. */
const SAMPLES = 3;

/** Times each choice on one shape. Kernels whose results are off at any place looked at may not win. */
export async function compareAttention(
  backend: WebGpuBackend,
  whole: AttentionShape,
  choices: readonly AttentionChoice[],
): Promise<AttentionTuning> {
  const D = whole.heads * whole.width;
  const images = Math.max(1, Math.min(whole.images, Math.floor(LARGEST_OPERAND / (whole.tokens * 3 * D * 4))));
  const shape = { ...whole, images }, { heads, tokens, queries } = shape;
  const qkv = tensor("tuning qkv", [images * tokens, 3 * D], "input");
  const dy = tensor("tuning dy", [images * queries, D], "input"), y = tensor("tuning y", dy.shape, "output");
  const lse = tensor("tuning lse", [images, heads, queries], "output");
  const dqkv = tensor("tuning dqkv", qkv.shape, "output");
  fillForTuning(backend, qkv, 1);
  fillForTuning(backend, dy, 2);
  const forward = new Program("tuning attention");
  attention(forward, qkv, { images, tokens, heads, queries });
  forward.ops[0] = { ...forward.ops[0], out: { y, lse } } as typeof forward.ops[0];
  const backward = new Program("tuning attention backward");
  const attrs = { images, tokens, heads, queries };
  backward.emit<AttentionBackwardOp>({ kind: "attentionBackward", in: { dy, qkv, y, lse }, out: { dqkv }, attrs });
  if (shape.backward) await (await backend.compileWith(forward)).run();
  const micros: Record<string, number> = {}, wrong: string[] = [];
  for (const choice of choices) {
    const name = attentionChoiceName(choice);
    const compiling = backend.compileWith(shape.backward ? backward : forward, undefined, () => choice);
    const executable = await compiling.catch(() => undefined);
    if (!executable) {
      backend.check(); // a lost device is lost for all
      wrong.push(name); // a driver that cannot build a kernel has others
      continue;
    }
    await executable.run();
    if (await isRight(backend, shape, { y, lse, dqkv })) micros[name] = await timeOf(backend, executable);
    else wrong.push(name);
    executable.dispose();
  }
  backend.free(qkv, dy, y, lse, dqkv);
  const [chosen] = Object.entries(micros).sort(([, a], [, b]) => a - b).map(([name]) => name);
  if (chosen === undefined) {
    throw new Error(
      `webgpu: every attention kernel for ${tokens} tokens is wrong on ${backend.description}: update the driver, or use the SIMD backend`,
    );
  }
  return { shape: whole, chosen, micros, wrong };
}

/** Compares some queries and keys of the first and the last head with float64 sums. */
async function isRight(
  backend: WebGpuBackend,
  { backward, heads, tokens, queries, width }: AttentionShape,
  { y, lse, dqkv }: { y: Tensor; lse: Tensor; dqkv: Tensor },
): Promise<boolean> {
  const D = heads * width, scale = 1 / Math.sqrt(width);
  const first = (t: Tensor, length: number) => backend.read(view(t, "sample", [length], 0)) as Promise<Float32Array>;
  const gotY = await first(y, queries * D), gotLse = await first(lse, heads * queries);
  const gradients = backward ? await first(dqkv, tokens * 3 * D) : undefined;
  // Sums of at most `tokens` numbers near 1, each rounded.
  const near = (got: number, truth: number) =>
    Math.abs(got - truth) <= 1e-5 + 2e-7 * Math.sqrt(tokens) * Math.abs(truth);
  const picks = (
    n: number,
  ) => [...new Set(Array.from({ length: SAMPLES }, (_, i) => Math.floor(i * (n - 1) / (SAMPLES - 1))))];
  const at = (part: number, token: number, head: number, c: number) =>
    tuningValue(token * 3 * D + part * D + head * width + c, 1);
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
        if (!near(gotY[i * D + head * width + c], value)) return false;
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
