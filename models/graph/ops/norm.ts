// Normalisations along a row: layer norm, L2 norm, and the weight norm of the head's last layer.
import { asMatrix, type Program, require } from "../program.ts";
import { size, type Tensor } from "../tensor.ts";
import type { Operation, OpRule } from "./rule.ts";

/**
 * y[r, :] = (x[r, :] − mean) · rstd · weight + bias, with the biased variance and rstd = 1/√(var + eps).
 * stats [rows, 2] keeps (mean, rstd). Without `y` only they are computed: products may normalise rows as they read them
 * (see `Prologue`).
 */
export type LayerNormOp = Operation<
  "layerNorm",
  { x: Tensor; weight: Tensor; bias: Tensor },
  { y?: Tensor; stats?: Tensor },
  { eps: number }
>;

/**
 * With x̂ = (x − mean)·rstd and w = weight:
 * dx (+)= rstd · (dy·w − mean(dy·w) − x̂·mean(dy·w·x̂)), dweight (+)= Σᵣ dy·x̂, dbias (+)= Σᵣ dy.
 * `dx` may be `dy`'s memory when it does not accumulate.
 */
export type LayerNormBackwardOp = Operation<
  "layerNormBackward",
  { dy: Tensor; x: Tensor; stats: Tensor; weight: Tensor },
  { dx?: Tensor; dweight?: Tensor; dbias?: Tensor },
  { accumulateX: boolean; accumulateParams: boolean }
>;

/** y[r, :] = x[r, :] / max(‖x[r, :]‖, eps); norm [rows] keeps max(‖x‖, eps). */
export type L2NormalizeOp = Operation<"l2Normalize", { x: Tensor }, { y: Tensor; norm?: Tensor }, { eps: number }>;

/** dx (+)= (dy − y·Σ(dy·y)) / norm; where norm was clamped to eps, dx (+)= dy / eps. `dx` may be `dy`'s memory. */
export type L2NormalizeBackwardOp = Operation<
  "l2NormalizeBackward",
  { dy: Tensor; y: Tensor; norm: Tensor },
  { dx: Tensor },
  { eps: number; accumulate: boolean }
>;

/** weight[k, :] = gain[k] · v[k, :] / ‖v[k, :]‖; norm [K] keeps ‖v[k, :]‖. */
export type WeightNormOp = Operation<
  "weightNorm",
  { v: Tensor; gain: Tensor },
  { weight: Tensor; norm?: Tensor },
  Record<never, never>
>;

/**
 * With u = v/norm and s = Σ(dweight·u): dgain (+)= s; dv (+)= gain/norm · (dweight − u·s).
 */
export type WeightNormBackwardOp = Operation<
  "weightNormBackward",
  { dweight: Tensor; v: Tensor; gain: Tensor; norm: Tensor },
  { dv?: Tensor; dgain?: Tensor },
  { accumulate: boolean }
>;

/** Layer norm over the last extent; eps 1e-6 is DINO's, PyTorch's default is 1e-5. */
export function layerNorm(p: Program, x: Tensor, weight: Tensor, bias: Tensor, eps: number): Tensor {
  const [rows, columns] = asMatrix(x);
  require(
    size(weight) === columns && size(bias) === columns,
    "layerNorm",
    () => `x [${x.shape}], weight [${weight.shape}]`,
  );
  const y = p.activation(`norm(${x.name})`, x.shape);
  const stats = p.activation(`${y.name}.stats`, [rows, 2]);
  p.emit<LayerNormOp>({ kind: "layerNorm", in: { x, weight, bias }, out: { y, stats }, attrs: { eps } });
  return y;
}

/** Rows scaled to unit length; PyTorch's `normalize` clamps the norm at 1e-12. */
export function l2Normalize(p: Program, x: Tensor, eps = 1e-12): Tensor {
  const y = p.activation(`l2(${x.name})`, x.shape);
  const norm = p.activation(`${y.name}.norm`, [asMatrix(x)[0]]);
  p.emit<L2NormalizeOp>({ kind: "l2Normalize", in: { x }, out: { y, norm }, attrs: { eps } });
  return y;
}

/** Weight of a weight-normed linear layer: v [K, D], gain [K, 1] → [K, D]. */
export function weightNorm(p: Program, v: Tensor, gain: Tensor): Tensor {
  require(size(gain) === v.shape[0], "weightNorm", () => `gain [${gain.shape}] for v [${v.shape}]`);
  const weight = p.activation(`weightNorm(${v.name})`, v.shape);
  const norm = p.activation(`${weight.name}.norm`, [v.shape[0]]);
  p.emit<WeightNormOp>({ kind: "weightNorm", in: { v, gain }, out: { weight, norm }, attrs: {} });
  return weight;
}

export const layerNormRule: OpRule<LayerNormOp> = {
  optionalOutputs: ["stats"],
  inPlace: { y: "x" },
  reference(op, at) {
    const x = at(op.in.x), weight = at(op.in.weight), bias = at(op.in.bias);
    const y = op.out.y && at(op.out.y), stats = op.out.stats && at(op.out.stats);
    const [rows, columns] = asMatrix(op.in.x);
    for (let r = 0; r < rows; r++) {
      const row = x.slice(r * columns, (r + 1) * columns);
      const mean = row.reduce((a, b) => a + b, 0) / columns;
      const variance = row.reduce((a, b) => a + (b - mean) ** 2, 0) / columns;
      const rstd = 1 / Math.sqrt(variance + op.attrs.eps);
      if (stats) stats[2 * r] = mean, stats[2 * r + 1] = rstd;
      for (let c = 0; y && c < columns; c++) y[r * columns + c] = (row[c] - mean) * rstd * weight[c] + bias[c];
    }
  },
  gradient(op, g) {
    const dy = op.out.y && g.of(op.out.y);
    if (!dy) return;
    const { x, weight, bias } = op.in;
    const dweight = g.target(weight), dbias = g.target(bias), dx = g.target(x);
    if (!dx && !dweight) return;
    g.program.emit<LayerNormBackwardOp>({
      kind: "layerNormBackward",
      in: { dy, x, stats: op.out.stats!, weight },
      out: { dx: dx?.tensor, dweight: dweight?.tensor, dbias: dbias?.tensor },
      attrs: { accumulateX: dx?.accumulate ?? false, accumulateParams: dweight?.accumulate ?? false },
    });
  },
};

export const layerNormBackwardRule: OpRule<LayerNormBackwardOp> = {
  inPlace: { dx: "dy" },
  readsOutput: (op) => [
    ...(op.attrs.accumulateX ? ["dx"] : []),
    ...(op.attrs.accumulateParams ? ["dweight", "dbias"] : []),
  ],
  reference(op, at) {
    const dy = at(op.in.dy), x = at(op.in.x), stats = at(op.in.stats), weight = at(op.in.weight);
    const dx = op.out.dx && at(op.out.dx);
    const dweight = op.out.dweight && at(op.out.dweight), dbias = op.out.dbias && at(op.out.dbias);
    const { accumulateX, accumulateParams } = op.attrs;
    const [rows, columns] = asMatrix(op.in.x);
    if (!accumulateParams) dweight?.fill(0), dbias?.fill(0);
    const scaled = new Float64Array(columns), unit = new Float64Array(columns);
    for (let r = 0; r < rows; r++) {
      const mean = stats[2 * r], rstd = stats[2 * r + 1];
      let meanScaled = 0, meanProduct = 0;
      for (let c = 0; c < columns; c++) {
        const d = dy[r * columns + c];
        unit[c] = (x[r * columns + c] - mean) * rstd;
        scaled[c] = d * weight[c];
        meanScaled += scaled[c] / columns;
        meanProduct += scaled[c] * unit[c] / columns;
        if (dweight) dweight[c] += d * unit[c];
        if (dbias) dbias[c] += d;
      }
      if (!dx) continue;
      for (let c = 0; c < columns; c++) {
        const v = rstd * (scaled[c] - meanScaled - unit[c] * meanProduct);
        dx[r * columns + c] = accumulateX ? dx[r * columns + c] + v : v;
      }
    }
  },
};

export const l2NormalizeRule: OpRule<L2NormalizeOp> = {
  optionalOutputs: ["norm"],
  inPlace: { y: "x" },
  reference(op, at) {
    const x = at(op.in.x), y = at(op.out.y), norm = op.out.norm && at(op.out.norm);
    const [rows, columns] = asMatrix(op.in.x);
    for (let r = 0; r < rows; r++) {
      const row = x.slice(r * columns, (r + 1) * columns);
      const length = Math.max(Math.sqrt(row.reduce((a, b) => a + b * b, 0)), op.attrs.eps);
      if (norm) norm[r] = length;
      for (let c = 0; c < columns; c++) y[r * columns + c] = row[c] / length;
    }
  },
  gradient(op, g) {
    const dy = g.of(op.out.y);
    const target = dy && g.target(op.in.x);
    if (!target) return;
    g.program.emit<L2NormalizeBackwardOp>({
      kind: "l2NormalizeBackward",
      in: { dy, y: op.out.y, norm: op.out.norm! },
      out: { dx: target.tensor },
      attrs: { eps: op.attrs.eps, accumulate: target.accumulate },
    });
  },
};

export const l2NormalizeBackwardRule: OpRule<L2NormalizeBackwardOp> = {
  inPlace: { dx: "dy" },
  readsOutput: (op) => op.attrs.accumulate ? ["dx"] : [],
  reference(op, at) {
    const dy = at(op.in.dy), y = at(op.in.y), norm = at(op.in.norm), dx = at(op.out.dx);
    const [rows, columns] = asMatrix(op.in.y);
    for (let r = 0; r < rows; r++) {
      let dot = 0;
      for (let c = 0; c < columns; c++) dot += dy[r * columns + c] * y[r * columns + c];
      if (norm[r] <= op.attrs.eps) dot = 0; // clamped: the norm is a constant there
      for (let c = 0; c < columns; c++) {
        const at = r * columns + c;
        const v = (dy[at] - y[at] * dot) / norm[r];
        dx[at] = op.attrs.accumulate ? dx[at] + v : v;
      }
    }
  },
};

export const weightNormRule: OpRule<WeightNormOp> = {
  optionalOutputs: ["norm"],
  reference(op, at) {
    const v = at(op.in.v), gain = at(op.in.gain), weight = at(op.out.weight);
    const norm = op.out.norm && at(op.out.norm);
    const [rows, columns] = asMatrix(op.in.v);
    for (let k = 0; k < rows; k++) {
      let squares = 0;
      for (let c = 0; c < columns; c++) squares += v[k * columns + c] ** 2;
      const length = Math.sqrt(squares);
      if (norm) norm[k] = length;
      for (let c = 0; c < columns; c++) weight[k * columns + c] = gain[k] * v[k * columns + c] / length;
    }
  },
  gradient(op, g) {
    const dweight = g.of(op.out.weight);
    if (!dweight) return;
    const dv = g.target(op.in.v), dgain = g.target(op.in.gain);
    if (!dv && !dgain) return;
    g.program.emit<WeightNormBackwardOp>({
      kind: "weightNormBackward",
      in: { dweight, v: op.in.v, gain: op.in.gain, norm: op.out.norm! },
      out: { dv: dv?.tensor, dgain: dgain?.tensor },
      attrs: { accumulate: (dv ?? dgain)!.accumulate },
    });
  },
};

export const weightNormBackwardRule: OpRule<WeightNormBackwardOp> = {
  readsOutput: (op) => op.attrs.accumulate ? ["dv", "dgain"] : [],
  reference(op, at) {
    const dweight = at(op.in.dweight), v = at(op.in.v), gain = at(op.in.gain), norm = at(op.in.norm);
    const dv = op.out.dv && at(op.out.dv), dgain = op.out.dgain && at(op.out.dgain);
    const { accumulate } = op.attrs;
    const [rows, columns] = asMatrix(op.in.v);
    for (let k = 0; k < rows; k++) {
      let s = 0;
      for (let c = 0; c < columns; c++) s += dweight[k * columns + c] * v[k * columns + c] / norm[k];
      if (dgain) dgain[k] = accumulate ? dgain[k] + s : s;
      if (!dv) continue;
      for (let c = 0; c < columns; c++) {
        const at = k * columns + c;
        const value = gain[k] / norm[k] * (dweight[at] - v[at] / norm[k] * s);
        dv[at] = accumulate ? dv[at] + value : value;
      }
    }
  },
};
