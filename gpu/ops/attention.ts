// Attention and its backward pass, by the kernels that suit the number of tokens.
import { headWidth } from "../../models/graph/ops/attention.ts";
import type { OpOf } from "../../models/graph/ops/mod.ts";
import { rootOf } from "../../models/graph/tensor.ts";
import type { AttentionShape } from "../attention_choice.ts";
import { attentionKeyGradientKernel, attentionQueryGradientKernel } from "../kernels/attention_backward.ts";
import { attentionForwardKernel } from "../kernels/attention_forward.ts";
import { attentionSingleGradientKernel } from "../kernels/attention_single.ts";
import { kernel } from "../kernels/sources.ts";
import type { Lowering } from "../lowering.ts";
import { widthOf } from "./elementwise.ts";
import { lowerLaneAttention, lowerLaneAttentionBackward, prefersLanes } from "./lane_attention.ts";
import { lowerStoredAttentionBackward } from "./stored_attention.ts";

/** The extents of an attention, which its kernels are chosen by. `halves`: ids of the tensors that are kept as f16. */
export function attentionShape(
  op: OpOf<"attention"> | OpOf<"attentionBackward">,
  halves: ReadonlySet<number>,
): AttentionShape {
  const { images, heads, tokens, queries } = op.attrs;
  return {
    backward: op.kind === "attentionBackward",
    images,
    heads,
    tokens,
    queries,
    width: headWidth(op.in.qkv, op.attrs),
    half: halves.has(rootOf(op.in.qkv).id),
  };
}

export function lowerAttention(l: Lowering, op: OpOf<"attention">): void {
  if (prefersLanes(l, op.attrs)) return lowerLaneAttention(l, op);
  const { images, tokens, heads, queries } = op.attrs;
  const width = headWidth(op.in.qkv, op.attrs);
  const choice = l.chooseAttention(attentionShape(op, l.halves), l.limits);
  if (choice.kind !== "tiles") throw new TypeError(`webgpu: attention forward has no ${choice.kind} kernels`);
  const { rq, rk, together } = choice;
  const tiles = Math.ceil(queries / (8 * rq));
  l.emit(
    attentionForwardKernel({ width, rq, rk }, together),
    [l.of(op.in.qkv), l.of(op.out.y), l.of(op.out.lse)],
    { u: [images, tokens, heads, queries, tiles, Number(op.out.lse !== undefined)], f: [1 / Math.sqrt(width)] },
    Math.ceil(images * heads * tiles / together),
  );
}

export function lowerAttentionBackward(l: Lowering, op: OpOf<"attentionBackward">): void {
  const { images, tokens, heads, queries } = op.attrs;
  const width = headWidth(op.in.qkv, op.attrs);
  const asking = images * heads * queries;
  const delta = l.scratch(asking * 4);
  const vector = widthOf(width);
  l.emit(
    kernel("attention_delta", { width: vector }),
    [l.of(op.in.dy), l.of(op.in.y), delta],
    { u: [asking, heads, queries, width / vector] },
    Math.ceil(asking / 256),
  );
  if (prefersLanes(l, op.attrs)) return lowerLaneAttentionBackward(l, op, delta);
  const bindings = [l.of(op.in.dy), l.of(op.in.qkv), l.of(op.in.lse), delta, l.of(op.out.dqkv)];
  const choice = l.chooseAttention(attentionShape(op, l.halves), l.limits);
  if (choice.kind === "stored") return lowerStoredAttentionBackward(l, op, delta);
  if (choice.kind === "single") {
    const u = [images, tokens, heads, queries];
    l.emit(attentionSingleGradientKernel(width, tokens), bindings, { u, f: [1 / Math.sqrt(width)] }, images * heads);
    return;
  }
  const variant = { width, rq: choice.rq, rk: choice.rk };
  const tilesQ = Math.ceil(queries / (8 * choice.rq)), tilesK = Math.ceil(tokens / (8 * choice.rk));
  const params = (tiles: number) => ({ u: [images, tokens, heads, queries, tiles], f: [1 / Math.sqrt(width)] });
  l.emit(attentionQueryGradientKernel(variant), bindings, params(tilesQ), images * heads * tilesQ);
  l.emit(attentionKeyGradientKernel(variant), bindings, params(tilesK), images * heads * tilesK);
}

export function lowerAttentionProbs(l: Lowering, op: OpOf<"attentionProbs">): void {
  const { images, tokens, heads, queries, firstQuery } = op.attrs;
  const width = headWidth(op.in.qkv, op.attrs);
  const count = images * heads * queries;
  l.emit(
    kernel("attention_probs", { with: ["math", "rows"], constants: { LANES: 256 } }),
    [l.of(op.in.qkv), l.of(op.out.probs)],
    { u: [count, tokens, heads, queries, firstQuery, width], f: [1 / Math.sqrt(width)] },
    count,
  );
}
