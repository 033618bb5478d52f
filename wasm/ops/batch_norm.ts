// Batch norm: statistics of ranges of rows, joined, then applied row by row.
import { asMatrix } from "../../models/graph/program.ts";
import { Code } from "../codes.ts";
import { cut, flag, type Lowerings, real } from "../lowering.ts";

/** Elements of x in a range whose statistics are taken apart: two passes over it stay in a core's cache. */
const PART = 1 << 16;

/** Rows of a range at most: a chain of additions in float32 loses as many digits as it is long. */
const CHAIN = 256;

/** Rows of a part, by the shape alone: sums must not depend on the number of threads. */
function partRows(rows: number, channels: number): { parts: number; perPart: number } {
  const perPart = Math.min(rows, CHAIN, Math.max(1, Math.ceil(PART / channels)));
  return { parts: Math.ceil(rows / perPart), perPart };
}

export const batchNormLowerings: Lowerings = {
  batchNorm(op, to) {
    const { x, weight, bias, runningMean, runningVar } = op.in, { y, stats } = op.out;
    const { eps, momentum, training } = op.attrs, [rows, C] = asMatrix(x), { parts, perPart } = partRows(rows, C);
    const partial = training ? to.workspace(parts * 2 * C * 4) : 0;
    if (training) to.step(Code.batchNormPartial, parts, [to.at(x), partial, rows, C, perPart]);
    const columns = cut(to, C, { weight: 4 * parts });
    to.step(Code.batchNormStats, columns.chunks, [
      partial,
      to.at(runningMean),
      to.at(runningVar),
      to.at(stats),
      rows,
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

  batchNormBackward(op, to) {
    const { dy, x, stats, weight } = op.in, { dx, dweight, dbias } = op.out;
    const { training, accumulateX, accumulateParams } = op.attrs;
    const [rows, C] = asMatrix(x), { parts, perPart } = partRows(rows, C);
    const partial = to.workspace(parts * 2 * C * 4), sums = to.workspace(2 * C * 4);
    to.step(Code.batchNormBackwardPartial, parts, [to.at(dy), to.at(x), to.at(stats), partial, rows, C, perPart]);
    const columns = cut(to, C, { weight: 4 * parts });
    to.step(Code.batchNormBackwardSums, columns.chunks, [
      partial,
      parts,
      sums,
      to.at(dweight),
      to.at(dbias),
      C,
      real(training ? 1 / rows : 0),
      flag(accumulateParams),
      columns.perChunk,
    ]);
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
