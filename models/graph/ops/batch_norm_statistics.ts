// What ranks that share a batch tell each other of a batch norm: statistics of their rows, forward and backward.
import { asMatrix } from "../program.ts";
import type { Tensor } from "../tensor.ts";
import type { Operation, OpRule } from "./rule.ts";

/** Of each column of x [rows, C]: mean, and Σ (x − mean)², as moments [2, C]. */
export type BatchNormMomentsOp = Operation<
  "batchNormMoments",
  { x: Tensor },
  { moments: Tensor },
  Record<never, never>
>;

/**
 * sums [2, C] = Σ dy·x̂ and Σ dy over the rows at hand; dweight (+)= Σ dy·x̂ and dbias (+)= Σ dy likewise. stats [2, C] are the mean
 * and 1/√variance by which x was normalised.
 */
export type BatchNormSumsOp = Operation<
  "batchNormSums",
  { dy: Tensor; x: Tensor; stats: Tensor },
  { sums: Tensor; dweight?: Tensor; dbias?: Tensor },
  { accumulateParams: boolean }
>;

export const batchNormMomentsRule: OpRule<BatchNormMomentsOp> = {
  reference(op, at) {
    const x = at(op.in.x), moments = at(op.out.moments);
    const [rows, channels] = asMatrix(op.in.x);
    for (let c = 0; c < channels; c++) {
      let mean = 0, squares = 0;
      for (let r = 0; r < rows; r++) mean += x[r * channels + c] / rows;
      for (let r = 0; r < rows; r++) squares += (x[r * channels + c] - mean) ** 2;
      moments[c] = mean;
      moments[channels + c] = squares;
    }
  },
};

export const batchNormSumsRule: OpRule<BatchNormSumsOp> = {
  readsOutput: (op) => op.attrs.accumulateParams ? ["dweight", "dbias"] : [],
  reference(op, at) {
    const dy = at(op.in.dy), x = at(op.in.x), stats = at(op.in.stats), sums = at(op.out.sums);
    const { dweight, dbias } = op.out;
    const [rows, channels] = asMatrix(op.in.x);
    for (let c = 0; c < channels; c++) {
      let sum = 0, product = 0;
      for (let r = 0; r < rows; r++) {
        sum += dy[r * channels + c];
        product += dy[r * channels + c] * (x[r * channels + c] - stats[c]) * stats[channels + c];
      }
      sums[c] = product;
      sums[channels + c] = sum;
      if (dweight) at(dweight)[c] = product + (op.attrs.accumulateParams ? at(dweight)[c] : 0);
      if (dbias) at(dbias)[c] = sum + (op.attrs.accumulateParams ? at(dbias)[c] : 0);
    }
  },
};

/** Mean and Σ (x − mean)² of column `c` over the rows of all ranks. @param moments [ranks, 2, C], each of `rows` rows */
export function joinMoments(
  moments: Float64Array,
  channels: number,
  rows: number,
  c: number,
): { mean: number; squares: number } {
  const ranks = moments.length / (2 * channels);
  let mean = 0, squares = 0;
  for (let r = 0; r < ranks; r++) mean += moments[2 * r * channels + c] / ranks;
  for (let r = 0; r < ranks; r++) {
    squares += moments[(2 * r + 1) * channels + c] + rows * (moments[2 * r * channels + c] - mean) ** 2;
  }
  return { mean, squares };
}
