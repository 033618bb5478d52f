// Fused attention and its backward pass, with tiles that suit the number of tokens.
import { type AttentionAttrs, headWidth } from "../../models/graph/ops/attention.ts";
import type { OpOf } from "../../models/graph/ops/mod.ts";
import { attentionKeyGradientKernel, attentionQueryGradientKernel } from "../kernels/attention_backward.ts";
import { attentionForwardKernel } from "../kernels/attention_forward.ts";
import {
  type AttentionTile,
  type AttentionVariant,
  backwardBytes,
  chooseAttentionTile,
  forwardBytes,
} from "../kernels/attention_tiles.ts";
import { kernel } from "../kernels/sources.ts";
import type { Lowering } from "../lowering.ts";
import { widthOf } from "./elementwise.ts";
import { lowerLaneAttention, lowerLaneAttentionBackward, prefersLanes } from "./lane_attention.ts";

/** Rows of a thread on a software adapter, which builds a long kernel for seconds. */
const LARGEST_ON_FALLBACK = 2;

/** The tile of an operation on the device that is lowered for. */
function tileFor(
  { limits: { workgroupBytes, fallback } }: Lowering,
  { queries, tokens }: AttentionAttrs,
  width: number,
  bytes: (variant: AttentionVariant) => number,
): AttentionTile {
  return chooseAttentionTile(queries, tokens, width, bytes, workgroupBytes, fallback ? LARGEST_ON_FALLBACK : undefined);
}

export function lowerAttention(l: Lowering, op: OpOf<"attention">): void {
  if (prefersLanes(l, op.attrs)) return lowerLaneAttention(l, op);
  const { images, tokens, heads, queries } = op.attrs;
  const width = headWidth(op.in.qkv, op.attrs);
  const tile = tileFor(l, op.attrs, width, forwardBytes);
  const tiles = Math.ceil(queries / (8 * tile.rq));
  l.emit(
    attentionForwardKernel({ width, ...tile }),
    [l.of(op.in.qkv), l.of(op.out.y), l.of(op.out.lse)],
    { u: [images, tokens, heads, queries, tiles, Number(op.out.lse !== undefined)], f: [1 / Math.sqrt(width)] },
    images * heads * tiles,
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
  const tile = tileFor(l, op.attrs, width, backwardBytes);
  const variant = { width, ...tile };
  const tilesQ = Math.ceil(queries / (8 * tile.rq)), tilesK = Math.ceil(tokens / (8 * tile.rk));
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
