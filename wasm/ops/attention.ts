// Attention: one chunk is one head of one image.
import { type AttentionAttrs, headWidth } from "../../models/graph/ops/attention.ts";
import { Code } from "../codes.ts";
import { type Lowerings, real } from "../lowering.ts";

/** Queries whose scores exist at a time: a multiple of every tile's rows, small enough for L2. */
function queryBlock(queries: number, tokens: number): number {
  const most = tokens <= 256 ? 120 : 60;
  return Math.min(most, Math.ceil(queries / 20) * 20);
}

/** Upper bound of what kernels/attention.ts pads a width to. */
const padded = (n: number) => Math.ceil(n / 16) * 16 + 16;

function extents({ tokens, queries }: AttentionAttrs, d: number) {
  const block = queryBlock(queries, tokens);
  const packed = (block + 8) * Math.max(tokens, d);
  return { block, width: padded(tokens) + 16, dWidth: padded(d), packed, scale: real(1 / Math.sqrt(d)) };
}

export const attentionLowerings: Lowerings = {
  attention(op, to) {
    const { images, tokens, heads, queries } = op.attrs, d = headWidth(op.in.qkv, op.attrs);
    const { block, width, dWidth, packed, scale } = extents(op.attrs, d);
    to.scratch(4 * (width * d + dWidth * tokens + width * block + dWidth * block + block + packed + 64));
    to.step(Code.attention, images * heads, [
      to.at(op.in.qkv),
      to.at(op.out.y),
      to.at(op.out.lse),
      tokens,
      heads,
      queries,
      d,
      block,
      scale,
    ]);
  },

  attentionBackward(op, to) {
    const { images, tokens, heads, queries } = op.attrs, d = headWidth(op.in.qkv, op.attrs);
    const { block, width, dWidth, packed, scale } = extents(op.attrs, d);
    to.scratch(4 * (2 * width * d + 3 * dWidth * tokens + 2 * width * block + 3 * dWidth * block + packed + 64));
    const { dy, qkv, y, lse } = op.in;
    to.step(Code.attentionBackward, images * heads, [
      to.at(dy),
      to.at(qkv),
      to.at(y),
      to.at(lse),
      to.at(op.out.dqkv),
      tokens,
      heads,
      queries,
      d,
      block,
      scale,
    ]);
  },

  attentionProbs(op, to) {
    const { images, tokens, heads, queries, firstQuery } = op.attrs, d = headWidth(op.in.qkv, op.attrs);
    const scale = real(1 / Math.sqrt(d));
    to.scratch(64);
    to.step(Code.attentionProbs, images * heads * queries, [
      to.at(op.in.qkv),
      to.at(op.out.probs),
      tokens,
      heads,
      queries,
      d,
      firstQuery,
      scale,
    ]);
  },
};
