// Batch norm over the rows of a matrix [rows, channels], with running statistics; in a program of several ranks, over the rows of all.
import { asMatrix, type Program, require } from "../program.ts";
import { size, type Tensor } from "../tensor.ts";
import { type BatchNormMomentsOp, type BatchNormSumsOp, joinMoments } from "./batch_norm_statistics.ts";
import { allGather, emitAllReduce } from "./collective.ts";
import type { Operation, OpRule } from "./rule.ts";

/**
 * training: y = (x − mean)·rstd·weight + bias over all rows (biased variance); stats [2, C] keeps mean, then rstd;
 * running ← (1 − momentum)·running + momentum·batch, with the unbiased variance, as PyTorch does.
 * evaluation: mean and variance are the running ones; stats still holds what was used.
 *
 * moments [ranks, 2, C]: what `batchNormMoments` tells of the rows of every rank, all of them as many; x is one rank's. Without it
 * x is the whole batch.
 */
export type BatchNormOp = Operation<
  "batchNorm",
  { x: Tensor; weight: Tensor; bias: Tensor; runningMean: Tensor; runningVar: Tensor; moments?: Tensor },
  { y: Tensor; stats: Tensor; runningMean?: Tensor; runningVar?: Tensor },
  { eps: number; momentum: number; training: boolean }
>;

/**
 * Training: dx (+)= weight·rstd · (dy − mean(dy) − x̂·mean(dy·x̂)); evaluation: dx (+)= weight·rstd·dy.
 * dweight (+)= Σ dy·x̂, dbias (+)= Σ dy. `dx` may be `dy`'s memory when it does not accumulate.
 *
 * sums [2, C]: Σ dy·x̂ and Σ dy over the rows of all `ranks`, of which x has one rank's; there is nothing but dx to make then.
 */
export type BatchNormBackwardOp = Operation<
  "batchNormBackward",
  { dy: Tensor; x: Tensor; stats: Tensor; weight: Tensor; sums?: Tensor },
  { dx?: Tensor; dweight?: Tensor; dbias?: Tensor },
  { training: boolean; accumulateX: boolean; accumulateParams: boolean; ranks?: number }
>;

/** Parameters and buffers of one batch norm, each [C]. */
export interface BatchNormTensors {
  /** Gain. */
  weight: Tensor;
  /** Shift. */
  bias: Tensor;
  /** Mean that evaluation uses. */
  runningMean: Tensor;
  /** Variance that evaluation uses. */
  runningVar: Tensor;
}

/**
 * Batch norm of x [..., C]; PyTorch's defaults are eps 1e-5 and momentum 0.1.
 *
 * In training, and in a program of several ranks, statistics are those of the rows of all ranks, as in PyTorch's SyncBatchNorm:
 * values, gradients and running statistics are those of one rank with the whole batch.
 */
export function batchNorm(
  p: Program,
  x: Tensor,
  { weight, bias, runningMean, runningVar }: BatchNormTensors,
  { training, eps = 1e-5, momentum = 0.1 }: { training: boolean; eps?: number; momentum?: number },
): Tensor {
  const [rows, channels] = asMatrix(x);
  for (const t of [weight, bias, runningMean, runningVar]) {
    require(size(t) === channels, "batchNorm", () => `${t.name} [${t.shape}] for x [${x.shape}]`);
  }
  require(
    !training || rows * p.ranks > 1,
    "batchNorm",
    () => `${rows} row(s) of x [${x.shape}] have no variance: use a batch of 2 or more`,
  );
  const y = p.activation(`batchNorm(${x.name})`, x.shape);
  const stats = p.activation(`${y.name}.stats`, [2, channels]);
  const moments = training && p.ranks > 1 ? gatherMoments(p, x, channels) : undefined;
  p.emit<BatchNormOp>({
    kind: "batchNorm",
    in: { x, weight, bias, runningMean, runningVar, ...(moments ? { moments } : {}) },
    out: { y, stats, ...(training ? { runningMean, runningVar } : {}) },
    attrs: { eps, momentum, training },
  });
  return y;
}

/** Statistics of the rows of every rank, [ranks, 2, C]. */
function gatherMoments(p: Program, x: Tensor, channels: number): Tensor {
  const moments = p.activation(`${x.name}.moments`, [2, channels]);
  p.emit<BatchNormMomentsOp>({ kind: "batchNormMoments", in: { x }, out: { moments }, attrs: {} });
  return allGather(p, moments);
}

/**
 * How often a run of the program moves the running statistics with this mean: what PyTorch counts as `num_batches_tracked`. What the
 * backward pass computes again moves nothing.
 */
export function batchesTracked(p: Program, runningMean: Tensor): number {
  return p.ops.filter((op) => op.kind === "batchNorm" && op.out.runningMean?.id === runningMean.id).length;
}

export const batchNormRule: OpRule<BatchNormOp> = {
  reference(op, at) {
    const x = at(op.in.x), weight = at(op.in.weight), bias = at(op.in.bias);
    const y = at(op.out.y), stats = at(op.out.stats);
    const { eps, momentum, training } = op.attrs;
    const [rows, channels] = asMatrix(op.in.x);
    const moments = op.in.moments && at(op.in.moments);
    const all = rows * (op.in.moments?.shape[0] ?? 1);
    for (let c = 0; c < channels; c++) {
      let mean = at(op.in.runningMean)[c], variance = at(op.in.runningVar)[c];
      if (training) {
        mean = variance = 0;
        if (moments) {
          const joined = joinMoments(moments, channels, rows, c);
          mean = joined.mean;
          variance = joined.squares / all;
        } else {
          for (let r = 0; r < rows; r++) mean += x[r * channels + c] / rows;
          for (let r = 0; r < rows; r++) variance += (x[r * channels + c] - mean) ** 2 / rows;
        }
        const runningMean = at(op.out.runningMean!), runningVar = at(op.out.runningVar!);
        runningMean[c] += momentum * (mean - runningMean[c]);
        runningVar[c] += momentum * (variance * all / (all - 1) - runningVar[c]);
      }
      const rstd = 1 / Math.sqrt(variance + eps);
      stats[c] = mean;
      stats[channels + c] = rstd;
      for (let r = 0; r < rows; r++) {
        y[r * channels + c] = (x[r * channels + c] - mean) * rstd * weight[c] + bias[c];
      }
    }
  },
  gradient(op, g) {
    const dy = g.of(op.out.y);
    if (!dy) return;
    const { x, weight, bias } = op.in;
    const dweight = g.target(weight), dbias = g.target(bias), dx = g.target(x);
    if (!dx && !dweight) return;
    const { stats } = op.out, { training } = op.attrs, { moments } = op.in;
    const params = { dweight: dweight?.tensor, dbias: dbias?.tensor };
    const accumulateX = dx?.accumulate ?? false, accumulateParams = dweight?.accumulate ?? false;
    if (!moments) {
      g.program.emit<BatchNormBackwardOp>({
        kind: "batchNormBackward",
        in: { dy, x, stats, weight },
        out: { dx: dx?.tensor, ...params },
        attrs: { training, accumulateX, accumulateParams },
      });
      return;
    }
    // Weight and bias take this rank's share: whoever adds up the gradients of the ranks adds up theirs too.
    const sums = g.program.activation(`${op.out.y.name}.sums`, stats.shape);
    g.program.emit<BatchNormSumsOp>({
      kind: "batchNormSums",
      in: { dy, x, stats },
      out: { sums, ...params },
      attrs: { accumulateParams },
    });
    if (!dx) return;
    emitAllReduce(g.program, sums);
    g.program.emit<BatchNormBackwardOp>({
      kind: "batchNormBackward",
      in: { dy, x, stats, weight, sums },
      out: { dx: dx.tensor },
      attrs: { training, accumulateX, accumulateParams: false, ranks: moments.shape[0] },
    });
  },
};

export const batchNormBackwardRule: OpRule<BatchNormBackwardOp> = {
  inPlace: { dx: "dy" },
  readsOutput: (op) => [
    ...(op.attrs.accumulateX ? ["dx"] : []),
    ...(op.attrs.accumulateParams ? ["dweight", "dbias"] : []),
  ],
  reference(op, at) {
    const dy = at(op.in.dy), x = at(op.in.x), stats = at(op.in.stats), weight = at(op.in.weight);
    const dx = op.out.dx && at(op.out.dx);
    const dweight = op.out.dweight && at(op.out.dweight), dbias = op.out.dbias && at(op.out.dbias);
    const { training, accumulateX, accumulateParams, ranks = 1 } = op.attrs;
    const given = op.in.sums && at(op.in.sums);
    const [rows, channels] = asMatrix(op.in.x), all = rows * ranks;
    for (let c = 0; c < channels; c++) {
      const mean = stats[c], rstd = stats[channels + c];
      let sum = given ? given[channels + c] : 0, product = given ? given[c] : 0;
      for (let r = 0; r < rows && !given; r++) {
        const at = r * channels + c;
        sum += dy[at];
        product += dy[at] * (x[at] - mean) * rstd;
      }
      if (dweight) dweight[c] = accumulateParams ? dweight[c] + product : product;
      if (dbias) dbias[c] = accumulateParams ? dbias[c] + sum : sum;
      if (!dx) continue;
      for (let r = 0; r < rows; r++) {
        const at = r * channels + c;
        const unit = (x[at] - mean) * rstd;
        const v = weight[c] * rstd * (dy[at] - (training ? sum / all + unit * product / all : 0));
        dx[at] = accumulateX ? dx[at] + v : v;
      }
    }
  },
};
