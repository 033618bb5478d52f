// Batch norm: statistics of ranges of rows, joined, then applied row by row.
import { asMatrix } from "../../models/graph/program.ts";
import { Code } from "../codes.ts";
import type { Tensor } from "../../models/graph/tensor.ts";
import { cut, flag, type Lowering, type Lowerings, real } from "../lowering.ts";

/** Elements of x in a range whose statistics are taken apart: two passes over it stay in a core's cache. */
const PART = 1 << 16;

/** Rows of a range at most: a chain of additions in float32 loses as many digits as it is long. */
const CHAIN = 64;

/** Rows of a part, by the shape alone: sums must not depend on the number of threads. */
function partRows(rows: number, channels: number): { parts: number; perPart: number } {
  const perPart = Math.min(rows, CHAIN, Math.max(1, Math.ceil(PART / channels)));
  return { parts: Math.ceil(rows / perPart), perPart };
}

/** Takes the statistics of ranges of rows; [parts, 2, C]. */
function emitParts(to: Lowering, x: Tensor): { partial: number; parts: number; perPart: number } {
  const [rows, C] = asMatrix(x), { parts, perPart } = partRows(rows, C);
  const partial = to.workspace(parts * 2 * C * 4);
  to.step(Code.batchNormPartial, parts, [to.at(x), partial, rows, C, perPart]);
  return { partial, parts, perPart };
}

/** Takes the sums of ranges of rows; [parts, 2, C]. */
function emitBackwardParts(to: Lowering, dy: Tensor, x: Tensor, stats: Tensor): { partial: number; parts: number } {
  const [rows, C] = asMatrix(x), { parts, perPart } = partRows(rows, C);
  const partial = to.workspace(parts * 2 * C * 4);
  to.step(Code.batchNormBackwardPartial, parts, [to.at(dy), to.at(x), to.at(stats), partial, rows, C, perPart]);
  return { partial, parts };
}

/** Joins them times `share` into sums [2, C], and adds them to the gradients of the parameters. */
function emitSums(
  to: Lowering,
  partial: number,
  parts: number,
  sums: number,
  C: number,
  share: number,
  { dweight, dbias, accumulate }: { dweight?: Tensor; dbias?: Tensor; accumulate: boolean },
): void {
  const { chunks, perChunk } = cut(to, C, { weight: 4 * parts });
  const args = [partial, parts, sums, to.at(dweight), to.at(dbias), C, real(share), flag(accumulate), perChunk];
  to.step(Code.batchNormBackwardSums, chunks, args);
}

export const batchNormLowerings: Lowerings = {
  batchNormMoments(op, to) {
    const { x } = op.in, [rows, C] = asMatrix(x);
    const { partial, parts, perPart } = emitParts(to, x);
    const { chunks, perChunk } = cut(to, C, { weight: 4 * parts });
    to.step(Code.batchNormMoments, chunks, [partial, to.at(op.out.moments), rows, C, perPart, perChunk]);
  },

  batchNorm(op, to) {
    const { x, weight, bias, runningMean, runningVar, moments } = op.in, { y, stats } = op.out;
    const { eps, momentum, training } = op.attrs, [rows, C] = asMatrix(x);
    const ranks = moments?.shape[0] ?? 1;
    const { partial, parts, perPart } = moments
      ? { partial: to.at(moments), parts: ranks, perPart: rows }
      : training
      ? emitParts(to, x)
      : { partial: 0, ...partRows(rows, C) };
    const columns = cut(to, C, { weight: 4 * parts });
    to.step(Code.batchNormStats, columns.chunks, [
      partial,
      to.at(runningMean),
      to.at(runningVar),
      to.at(stats),
      rows * ranks,
      C,
      perPart,
      real(eps),
      real(momentum),
      columns.perChunk,
    ]);
    to.scratch(C * 4 + 16);
    const { chunks, perChunk } = cut(to, rows, { weight: C });
    to.step(Code.batchNorm, chunks, [
      to.at(x),
      to.at(stats),
      to.at(weight),
      to.at(bias),
      to.at(y),
      rows,
      C,
      perChunk,
    ]);
  },

  batchNormSums(op, to) {
    const { dy, x, stats } = op.in, { sums, dweight, dbias } = op.out, C = asMatrix(x)[1];
    const { partial, parts } = emitBackwardParts(to, dy, x, stats);
    emitSums(to, partial, parts, to.at(sums), C, 1, { dweight, dbias, accumulate: op.attrs.accumulateParams });
  },

  batchNormBackward(op, to) {
    const { dy, x, stats, weight, sums: given } = op.in, { dx, dweight, dbias } = op.out;
    const { training, accumulateX, accumulateParams, ranks = 1 } = op.attrs;
    const [rows, C] = asMatrix(x);
    const { partial, parts } = given ? { partial: to.at(given), parts: 1 } : emitBackwardParts(to, dy, x, stats);
    const sums = to.workspace(2 * C * 4), share = training ? 1 / (rows * ranks) : 0;
    emitSums(to, partial, parts, sums, C, share, { dweight, dbias, accumulate: accumulateParams });
    if (!dx) return;
    to.scratch(2 * (C * 4 + 32));
    const { chunks, perChunk } = cut(to, rows, { weight: C });
    to.step(Code.batchNormBackward, chunks, [
      to.at(dy),
      to.at(x),
      to.at(stats),
      to.at(weight),
      sums,
      to.at(dx),
      rows,
      C,
      flag(accumulateX),
      perChunk,
    ]);
  },
};
