// Attention: one chunk is one head of one image.
import { headWidth } from "../../models/graph/ops/attention.ts";
import { Code } from "../codes.ts";
import { type Lowerings, real } from "../lowering.ts";

/** Queries whose scores exist at a time, in sixteens: blocks of one size, small enough for L2. */
function queryBlock(queries: number, tokens: number): number {
  const columns = Math.ceil(queries / 16), blocks = Math.ceil(columns / (tokens <= 256 ? 7 : 3));
  return 16 * Math.ceil(columns / blocks);
}

/** Upper bound of what kernels/attention.ts pads a width to. */
const padded = (n: number) => Math.ceil(n / 16) * 16 + 16;

/** What turns a score into an exponent of two. */
const factorOf = (d: number) => real(Math.LOG2E / Math.sqrt(d));

export const attentionLowerings: Lowerings = {
  attention(op, to) {
    const { images, tokens, heads, queries } = op.attrs, d = headWidth(op.in.qkv, op.attrs);
    const block = queryBlock(queries, tokens), dWidth = padded(d);
    to.scratch(4 * ((d + dWidth + block + 16) * tokens + (d + dWidth + 2) * block + 64));
    to.step(Code.attention, images * heads, [
      to.at(op.in.qkv),
      to.at(op.out.y),
      to.at(op.out.lse),
      tokens,
      heads,
      queries,
      d,
      block,
      factorOf(d),
    ]);
  },

  attentionBackward(op, to) {
    const { images, tokens, heads, queries } = op.attrs, d = headWidth(op.in.qkv, op.attrs);
    const block = queryBlock(queries, tokens), dWidth = padded(d);
    to.scratch(4 * ((2 * d + 3 * dWidth + 3 * (block + 16)) * tokens + (3 * dWidth + 2) * block + 64));
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
      real(1 / Math.sqrt(d)),
      factorOf(d),
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
