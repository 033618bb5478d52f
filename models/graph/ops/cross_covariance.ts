// Cross-covariance attention of XCiT: channels attend to channels, so that its cost grows with the tokens only linearly.
import { asMatrix, type Program, require } from "../program.ts";
import { size, type Tensor } from "../tensor.ts";
import type { Operation, OpRule } from "./rule.ts";

/** Extents. B images, N tokens, H heads, d = D/H. */
export interface CrossCovarianceAttrs {
  /** B. */
  readonly images: number;
  /** N. */
  readonly tokens: number;
  /** H. */
  readonly heads: number;
}

/** Norms of channels are at least this, as in PyTorch's `normalize`. */
const LEAST_NORM = 1e-12;

/**
 * qkv [B·N, 3·D], each row q, k, v, each of them head-major. In each head, with q̂ᵢ and k̂ⱼ channels over the tokens, of length 1:
 * cosines[i, j] = Σ_n q̂[n, i]·k̂[n, j]; P = softmax over j of temperature·cosines; y[n, i] = Σ_j P[i, j]·v[n, j].
 * temperature [H]; y [B·N, D], heads side by side; cosines [B, H, d, d] and norms [B, H, 2, d] (of q, then of k) are for backward.
 */
export type CrossCovarianceOp = Operation<
  "crossCovariance",
  { qkv: Tensor; temperature: Tensor },
  { y: Tensor; cosines: Tensor; norms: Tensor },
  CrossCovarianceAttrs
>;

/**
 * With dP = dyᵀ·v, dS = P∘(dP − Σ_j P∘dP), dC = temperature·dS, A[i, j] = dC[i, j]/(|qᵢ|·|kⱼ|):
 * dq[n, i] = Σ_j A[i, j]·k[n, j] − q[n, i]·Σ_j dC∘cosines/|qᵢ|², dk likewise, dv[n, j] = Σ_i P[i, j]·dy[n, i];
 * dtemperature[h] (+)= Σ_b,i,j dS∘cosines. dqkv [B·N, 3·D] is written whole.
 */
export type CrossCovarianceBackwardOp = Operation<
  "crossCovarianceBackward",
  { dy: Tensor; qkv: Tensor; temperature: Tensor; cosines: Tensor; norms: Tensor },
  { dqkv: Tensor; dtemperature?: Tensor },
  CrossCovarianceAttrs & { accumulateTemperature: boolean }
>;

/** Width of a head; throws {RangeError} when heads do not divide the width or qkv has another size. */
export function covarianceHeadWidth(qkv: Tensor, { images, tokens, heads }: CrossCovarianceAttrs): number {
  const [rows, columns] = asMatrix(qkv);
  require(
    rows === images * tokens && columns % (3 * heads) === 0,
    "crossCovariance",
    () => `qkv [${qkv.shape}] is not ${images} images × ${tokens} tokens of 3 × ${heads} heads`,
  );
  return columns / (3 * heads);
}

/** Cross-covariance attention [B·N, D] before the output projection; temperature [H] in any shape. */
export function crossCovariance(p: Program, qkv: Tensor, temperature: Tensor, attrs: CrossCovarianceAttrs): Tensor {
  const d = covarianceHeadWidth(qkv, attrs);
  const { images, tokens, heads } = attrs;
  require(
    size(temperature) === heads,
    "crossCovariance",
    () => `temperature [${temperature.shape}] for ${heads} heads`,
  );
  const y = p.activation(`covariance(${qkv.name})`, [images * tokens, heads * d]);
  const cosines = p.activation(`${y.name}.cosines`, [images, heads, d, d]);
  const norms = p.activation(`${y.name}.norms`, [images, heads, 2, d]);
  p.emit<CrossCovarianceOp>({ kind: "crossCovariance", in: { qkv, temperature }, out: { y, cosines, norms }, attrs });
  return y;
}

/** Where the channels of a head lie: q, k, v of token n and channel i, and y. */
function places({ tokens, heads }: CrossCovarianceAttrs, d: number, image: number, head: number) {
  const D = heads * d;
  return {
    part: (which: 0 | 1 | 2, n: number, i: number) => ((image * tokens + n) * 3 + which) * D + head * d + i,
    output: (n: number, i: number) => (image * tokens + n) * D + head * d + i,
  };
}

/** softmax over j of temperature·cosines[i, j], [d, d]. */
function attentionOf(cosines: Float64Array, temperature: number, d: number): Float64Array {
  const probs = new Float64Array(d * d);
  for (let i = 0; i < d; i++) {
    const scores = cosines.subarray(i * d, (i + 1) * d).map((c) => temperature * c);
    const max = scores.reduce((a, b) => Math.max(a, b), -Infinity);
    const exps = scores.map((s) => Math.exp(s - max)), sum = exps.reduce((a, b) => a + b, 0);
    for (let j = 0; j < d; j++) probs[i * d + j] = exps[j] / sum;
  }
  return probs;
}

export const crossCovarianceRule: OpRule<CrossCovarianceOp> = {
  reference(op, at) {
    const d = covarianceHeadWidth(op.in.qkv, op.attrs), { images, tokens, heads } = op.attrs;
    const qkv = at(op.in.qkv), temperature = at(op.in.temperature), y = at(op.out.y);
    for (let pair = 0; pair < images * heads; pair++) {
      const head = pair % heads, { part, output } = places(op.attrs, d, Math.floor(pair / heads), head);
      const norms = at(op.out.norms).subarray(pair * 2 * d, (pair + 1) * 2 * d);
      const cosines = at(op.out.cosines).subarray(pair * d * d, (pair + 1) * d * d);
      for (const which of [0, 1] as const) {
        for (let i = 0; i < d; i++) {
          let squares = 0;
          for (let n = 0; n < tokens; n++) squares += qkv[part(which, n, i)] ** 2;
          norms[which * d + i] = Math.max(Math.sqrt(squares), LEAST_NORM);
        }
      }
      for (let i = 0; i < d; i++) {
        for (let j = 0; j < d; j++) {
          let dot = 0;
          for (let n = 0; n < tokens; n++) dot += qkv[part(0, n, i)] * qkv[part(1, n, j)];
          cosines[i * d + j] = dot / (norms[i] * norms[d + j]);
        }
      }
      const probs = attentionOf(cosines, temperature[head], d);
      for (let n = 0; n < tokens; n++) {
        for (let i = 0; i < d; i++) {
          let sum = 0;
          for (let j = 0; j < d; j++) sum += probs[i * d + j] * qkv[part(2, n, j)];
          y[output(n, i)] = sum;
        }
      }
    }
  },
  gradient(op, g) {
    const dy = g.of(op.out.y);
    if (!dy) return;
    const { qkv, temperature } = op.in, { cosines, norms } = op.out;
    if (!g.needs(qkv) && !g.needs(temperature)) return;
    const dtemperature = g.target(temperature);
    const dqkv = g.program.activation(`d(${qkv.name})`, qkv.shape);
    g.program.emit<CrossCovarianceBackwardOp>({
      kind: "crossCovarianceBackward",
      in: { dy, qkv, temperature, cosines, norms },
      out: { dqkv, dtemperature: dtemperature?.tensor },
      attrs: { ...op.attrs, accumulateTemperature: dtemperature?.accumulate ?? false },
    });
    g.donate(qkv, dqkv);
  },
};

export const crossCovarianceBackwardRule: OpRule<CrossCovarianceBackwardOp> = {
  readsOutput: (op) => op.attrs.accumulateTemperature ? ["dtemperature"] : [],
  reference(op, at) {
    const d = covarianceHeadWidth(op.in.qkv, op.attrs), { images, tokens, heads } = op.attrs;
    const qkv = at(op.in.qkv), dy = at(op.in.dy), temperature = at(op.in.temperature), dqkv = at(op.out.dqkv);
    const dtemperature = op.out.dtemperature && at(op.out.dtemperature);
    if (dtemperature && !op.attrs.accumulateTemperature) dtemperature.fill(0);
    for (let pair = 0; pair < images * heads; pair++) {
      const head = pair % heads, { part, output } = places(op.attrs, d, Math.floor(pair / heads), head);
      const norms = at(op.in.norms).subarray(pair * 2 * d, (pair + 1) * 2 * d);
      const cosines = at(op.in.cosines).subarray(pair * d * d, (pair + 1) * d * d);
      const probs = attentionOf(cosines, temperature[head], d);
      const a = new Float64Array(d * d), ofQ = new Float64Array(d), ofK = new Float64Array(d);
      for (let i = 0; i < d; i++) {
        const dprobs = new Float64Array(d);
        let mean = 0;
        for (let j = 0; j < d; j++) {
          for (let n = 0; n < tokens; n++) dprobs[j] += dy[output(n, i)] * qkv[part(2, n, j)];
          mean += probs[i * d + j] * dprobs[j];
        }
        for (let j = 0; j < d; j++) {
          const ds = probs[i * d + j] * (dprobs[j] - mean), dc = temperature[head] * ds, c = cosines[i * d + j];
          if (dtemperature) dtemperature[head] += ds * c;
          a[i * d + j] = dc / (norms[i] * norms[d + j]);
          ofQ[i] += dc * c / norms[i] ** 2;
          ofK[j] += dc * c / norms[d + j] ** 2;
        }
      }
      for (let n = 0; n < tokens; n++) {
        for (let i = 0; i < d; i++) {
          let dq = -ofQ[i] * qkv[part(0, n, i)], dk = -ofK[i] * qkv[part(1, n, i)], dv = 0;
          for (let j = 0; j < d; j++) {
            dq += a[i * d + j] * qkv[part(1, n, j)];
            dk += a[j * d + i] * qkv[part(0, n, j)];
            dv += probs[j * d + i] * dy[output(n, j)];
          }
          dqkv[part(0, n, i)] = dq, dqkv[part(1, n, i)] = dk, dqkv[part(2, n, i)] = dv;
        }
      }
    }
  },
};
