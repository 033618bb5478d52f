// Attention on a software adapter: as products over all images and heads at once, with the scores in scratch space.
import { type AttentionAttrs, headWidth } from "../../models/graph/ops/attention.ts";
import type { OpOf } from "../../models/graph/ops/mod.ts";
import type { Strides } from "../kernels/lane_product.ts";
import { kernel } from "../kernels/sources.ts";
import type { Lowering } from "../lowering.ts";
import { emitLaneProduct } from "./lane_product.ts";
import type { Binding } from "../dispatch.ts";

/** Bytes of scores that may be stored; more are left to the fused kernels. */
const LARGEST_SCORES = 2 ** 26;

/** Whether attention of these extents should go this way. */
export function prefersLanes({ limits }: Lowering, { images, heads, queries, tokens }: AttentionAttrs): boolean {
  return limits.lanes > 0 && 4 * images * heads * queries * tokens <= Math.min(LARGEST_SCORES, limits.bindingBytes);
}

/** Where q, k, v of [B·N, 3·D], outputs [B·Q, D], and scores [B, H, Q, N] lie. */
function layout({ tokens, heads, queries }: AttentionAttrs, width: number) {
  const D = heads * width;
  const part = (i: number): Strides => ({ base: i * D, image: tokens * 3 * D, head: width, row: 3 * D, column: 1 });
  const output: Strides = { image: queries * D, head: width, row: D, column: 1 };
  const scores: Strides = { image: heads * queries * tokens, head: queries * tokens, row: tokens, column: 1 };
  return { q: part(0), k: part(1), v: part(2), output, scores };
}

function transposed({ row, column, ...rest }: Strides): Strides {
  return { ...rest, row: column, column: row };
}

export function lowerLaneAttention(l: Lowering, op: OpOf<"attention">): void {
  const { images, tokens, heads, queries } = op.attrs;
  const width = headWidth(op.in.qkv, op.attrs);
  const { q, k, v, output, scores } = layout(op.attrs, width);
  const rows = images * heads * queries;
  const qkv = l.of(op.in.qkv), probs = l.scratch(4 * rows * tokens);
  const each = { images, heads };
  emitLaneProduct(l, { m: queries, n: tokens, k: width, scale: 1 / Math.sqrt(width), ...each }, [qkv, q], [
    qkv,
    transposed(k),
  ], [probs, scores]);
  l.emit(
    kernel("softmax_rows", { with: ["math", "rows"], constants: { LANES: 1 } }),
    [probs, l.of(op.out.lse)],
    { u: [rows, tokens, Number(op.out.lse !== undefined)] },
    Math.ceil(rows / 256),
  );
  emitLaneProduct(l, { m: queries, n: width, k: tokens, ...each }, [probs, scores], [qkv, v], [l.of(op.out.y), output]);
}

/** @param delta Σ dy·y of each query and head */
export function lowerLaneAttentionBackward(l: Lowering, op: OpOf<"attentionBackward">, delta: Binding): void {
  const { images, tokens, heads, queries } = op.attrs;
  const width = headWidth(op.in.qkv, op.attrs);
  const { q, k, v, output, scores } = layout(op.attrs, width);
  const rows = images * heads * queries;
  const qkv = l.of(op.in.qkv), dy = l.of(op.in.dy), dqkv = l.of(op.out.dqkv);
  const probs = l.scratch(4 * rows * tokens), dscores = l.scratch(4 * rows * tokens);
  const each = { images, heads }, scale = 1 / Math.sqrt(width);
  const square = { m: queries, n: tokens, k: width, ...each };
  emitLaneProduct(l, { ...square, scale }, [qkv, q], [qkv, transposed(k)], [probs, scores]);
  emitLaneProduct(l, square, [dy, output], [qkv, transposed(v)], [dscores, scores]);
  l.emit(
    kernel("score_gradient", { with: ["math"] }),
    [probs, dscores, l.of(op.in.lse), delta],
    { u: [rows * tokens, tokens, tokens, 0], f: [1, scale] },
    Math.ceil(rows * tokens / 256),
  );
  emitLaneProduct(l, { m: queries, n: width, k: tokens, ...each }, [dscores, scores], [qkv, k], [dqkv, q]);
  const byKey = { m: tokens, n: width, k: queries, ...each };
  emitLaneProduct(l, byKey, [dscores, transposed(scores)], [qkv, q], [dqkv, k]);
  emitLaneProduct(l, byKey, [probs, transposed(scores)], [dy, output], [dqkv, v]);
  if (queries === tokens) return;
  const D = heads * width, count = images * (tokens - queries) * D;
  l.emit(kernel("clear_columns"), [dqkv], { u: [count, D, tokens, queries, 3 * D] }, Math.ceil(count / 256));
}
