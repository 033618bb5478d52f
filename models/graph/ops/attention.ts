// Multi-head self-attention, fused, so that the [B, H, N, N] scores need never exist.
import { asMatrix, type Program, require } from "../program.ts";
import type { Tensor } from "../tensor.ts";
import type { Operation, OpRule } from "./rule.ts";

/** Extents shared by the attention operations. B images, N tokens, H heads, d = D/H. */
export interface AttentionAttrs {
  /** B. */
  readonly images: number;
  /** N, [CLS] included. */
  readonly tokens: number;
  /** H. */
  readonly heads: number;
  /** The first `queries` tokens of each image ask; all tokens answer. N, or 1 for [CLS] alone. */
  readonly queries: number;
}

/**
 * qkv [B·N, 3·D], each row q, k, v, each of them head-major. With P = softmax(q·kᵀ/√d) over the keys:
 * y [B·queries, D] = P·v, heads side by side; lse [B, H, queries] = log Σ exp(q·kᵀ/√d), which is all that backward needs.
 */
export type AttentionOp = Operation<"attention", { qkv: Tensor }, { y: Tensor; lse?: Tensor }, AttentionAttrs>;

/**
 * With P recomputed from lse, δ = Σ_d dy·y per query and head, dS = P∘(dy·vᵀ − δ):
 * dq = dS·k/√d (zero for tokens that do not ask), dk = dSᵀ·q/√d, dv = Pᵀ·dy; dqkv [B·N, 3·D] is written whole.
 */
export type AttentionBackwardOp = Operation<
  "attentionBackward",
  { dy: Tensor; qkv: Tensor; y: Tensor; lse: Tensor },
  { dqkv: Tensor },
  AttentionAttrs
>;

/** probs [B, H, queries, N] = softmax(q·kᵀ/√d), for looking at; asked by tokens firstQuery … firstQuery + queries. */
export type AttentionProbsOp = Operation<
  "attentionProbs",
  { qkv: Tensor },
  { probs: Tensor },
  AttentionAttrs & { readonly firstQuery: number }
>;

/** Width of a head; throws {RangeError} when heads do not divide the width or qkv has another size. */
export function headWidth(qkv: Tensor, { images, tokens, heads, queries }: AttentionAttrs): number {
  const [rows, columns] = asMatrix(qkv);
  require(rows === images * tokens, "attention", () => `qkv [${qkv.shape}] is not ${images} images × ${tokens} tokens`);
  require(columns % (3 * heads) === 0, "attention", () => `qkv [${qkv.shape}] does not split into 3 × ${heads} heads`);
  require(queries >= 1 && queries <= tokens, "attention", () => `${queries} queries of ${tokens} tokens`);
  return columns / (3 * heads);
}

/** Attention output [B·queries, D] before the output projection. */
export function attention(p: Program, qkv: Tensor, attrs: AttentionAttrs): Tensor {
  const d = headWidth(qkv, attrs);
  const { images, heads, queries } = attrs;
  const y = p.activation(`attention(${qkv.name})`, [images * queries, heads * d]);
  const lse = p.activation(`${y.name}.lse`, [images, heads, queries]);
  p.emit<AttentionOp>({ kind: "attention", in: { qkv }, out: { y, lse }, attrs });
  return y;
}

/** Softmaxed attention of some query tokens into `probs` [B, H, queries, N] (made here unless given). */
export function attentionProbs(
  p: Program,
  qkv: Tensor,
  attrs: AttentionAttrs & { firstQuery: number },
  into?: Tensor,
): Tensor {
  headWidth(qkv, attrs);
  require(
    attrs.firstQuery + attrs.queries <= attrs.tokens,
    "attentionProbs",
    () => `queries past token ${attrs.tokens}`,
  );
  const probs = into ?? p.activation(`probs(${qkv.name})`, [attrs.images, attrs.heads, attrs.queries, attrs.tokens]);
  p.emit<AttentionProbsOp>({ kind: "attentionProbs", in: { qkv }, out: { probs }, attrs });
  return probs;
}

/** Scaled scores of one query against all keys. */
function scores(
  qkv: Float64Array,
  { tokens, heads }: AttentionAttrs,
  d: number,
  image: number,
  head: number,
  query: number,
): Float64Array {
  const width = 3 * heads * d;
  const q = (image * tokens + query) * width + head * d;
  return Float64Array.from({ length: tokens }, (_, key) => {
    const k = (image * tokens + key) * width + (heads + head) * d;
    let dot = 0;
    for (let c = 0; c < d; c++) dot += qkv[q + c] * qkv[k + c];
    return dot / Math.sqrt(d);
  });
}

function logSumExp(values: Float64Array): number {
  const max = values.reduce((a, b) => Math.max(a, b), -Infinity);
  return max + Math.log(values.reduce((a, b) => a + Math.exp(b - max), 0));
}

function* eachQuery(
  { images, heads, queries }: AttentionAttrs,
): Generator<[image: number, head: number, query: number]> {
  for (let image = 0; image < images; image++) {
    for (let head = 0; head < heads; head++) {
      for (let query = 0; query < queries; query++) yield [image, head, query];
    }
  }
}

export const attentionRule: OpRule<AttentionOp> = {
  optionalOutputs: ["lse"],
  reference(op, at) {
    const qkv = at(op.in.qkv), y = at(op.out.y), lse = op.out.lse && at(op.out.lse);
    const { tokens, heads, queries } = op.attrs;
    const d = headWidth(op.in.qkv, op.attrs);
    for (const [image, head, query] of eachQuery(op.attrs)) {
      const s = scores(qkv, op.attrs, d, image, head, query);
      const total = logSumExp(s);
      if (lse) lse[(image * heads + head) * queries + query] = total;
      const out = (image * queries + query) * heads * d + head * d;
      y.fill(0, out, out + d);
      for (let key = 0; key < tokens; key++) {
        const probability = Math.exp(s[key] - total);
        const v = (image * tokens + key) * 3 * heads * d + (2 * heads + head) * d;
        for (let c = 0; c < d; c++) y[out + c] += probability * qkv[v + c];
      }
    }
  },
  gradient(op, g) {
    const dy = g.of(op.out.y);
    const target = dy && g.target(op.in.qkv);
    if (!target) return;
    require(!target.accumulate, "attention", () => "qkv feeds two operations; its gradient is written whole");
    g.program.emit<AttentionBackwardOp>({
      kind: "attentionBackward",
      in: { dy, qkv: op.in.qkv, y: op.out.y, lse: op.out.lse! },
      out: { dqkv: target.tensor },
      attrs: op.attrs,
    });
  },
};

export const attentionBackwardRule: OpRule<AttentionBackwardOp> = {
  reference(op, at) {
    const dy = at(op.in.dy), qkv = at(op.in.qkv), y = at(op.in.y), lse = at(op.in.lse), dqkv = at(op.out.dqkv);
    const { tokens, heads, queries } = op.attrs;
    const d = headWidth(op.in.qkv, op.attrs);
    const width = 3 * heads * d;
    dqkv.fill(0);
    for (const [image, head, query] of eachQuery(op.attrs)) {
      const s = scores(qkv, op.attrs, d, image, head, query);
      const out = (image * queries + query) * heads * d + head * d;
      let delta = 0;
      for (let c = 0; c < d; c++) delta += dy[out + c] * y[out + c];
      const q = (image * tokens + query) * width + head * d;
      for (let key = 0; key < tokens; key++) {
        const probability = Math.exp(s[key] - lse[(image * heads + head) * queries + query]);
        const k = (image * tokens + key) * width + (heads + head) * d;
        const v = k + heads * d;
        let dProbability = 0;
        for (let c = 0; c < d; c++) dProbability += dy[out + c] * qkv[v + c];
        const dScore = probability * (dProbability - delta) / Math.sqrt(d);
        for (let c = 0; c < d; c++) {
          dqkv[q + c] += dScore * qkv[k + c];
          dqkv[k + c] += dScore * qkv[q + c];
          dqkv[v + c] += probability * dy[out + c];
        }
      }
    }
  },
};

export const attentionProbsRule: OpRule<AttentionProbsOp> = {
  reference(op, at) {
    const qkv = at(op.in.qkv), probs = at(op.out.probs);
    const { tokens, heads, queries, firstQuery } = op.attrs;
    const d = headWidth(op.in.qkv, op.attrs);
    for (const [image, head, query] of eachQuery(op.attrs)) {
      const s = scores(qkv, op.attrs, d, image, head, firstQuery + query);
      const total = logSumExp(s);
      probs.set(s.map((score) => Math.exp(score - total)), ((image * heads + head) * queries + query) * tokens);
    }
  },
};
