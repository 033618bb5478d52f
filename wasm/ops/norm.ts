// Normalisations along rows.
import { asMatrix } from "../../models/graph/program.ts";
import { Code } from "../codes.ts";
import { cut, cutFixed, flag, type Lowerings, real, requirePlain } from "../lowering.ts";

/** Row ranges whose parameter gradients are summed apart: never changes with the number of threads. */
const PARTIALS = 32;

export const normLowerings: Lowerings = {
  layerNorm(op, to) {
    requirePlain(op.kind, op.out.y !== undefined);
    const { x, weight, bias } = op.in, { y, stats } = op.out;
    const [rows, columns] = asMatrix(x), { chunks, perChunk } = cut(to, rows, { weight: 4 * columns });
    to.scratch(128);
    to.step(Code.layerNorm, chunks, [
      to.at(x),
      to.at(weight),
      to.at(bias),
      to.at(y),
      to.at(stats),
      rows,
      columns,
      real(op.attrs.eps),
      perChunk,
    ]);
  },

  layerNormBackward(op, to) {
    const { dy, x, stats, weight } = op.in, { dx, dweight, dbias } = op.out;
    const { accumulateX, accumulateParams } = op.attrs;
    const [rows, columns] = asMatrix(x), { chunks, perChunk } = cutFixed(rows, columns, PARTIALS);
    const wanted = dweight !== undefined || dbias !== undefined, rowBytes = columns * 4;
    const partials = wanted ? to.workspace(chunks * 2 * rowBytes) : 0;
    to.scratch(192 + 2 * rowBytes);
    to.step(Code.layerNormBackward, chunks, [
      to.at(dy),
      to.at(x),
      to.at(stats),
      to.at(weight),
      to.at(dx),
      partials,
      rows,
      columns,
      perChunk,
      flag(accumulateX),
    ]);
    const parts = cut(to, columns, { weight: chunks, multiple: 16 });
    for (const [target, first] of [[dweight, partials], [dbias, partials + rowBytes]] as const) {
      if (!target) continue;
      const args = [first, 2 * rowBytes, chunks, to.at(target), columns, parts.perChunk, flag(accumulateParams)];
      to.step(Code.sumPartials, parts.chunks, args);
    }
  },

  l2Normalize(op, to) {
    const { x } = op.in, { y, norm } = op.out;
    const [rows, columns] = asMatrix(x), { chunks, perChunk } = cut(to, rows, { weight: 2 * columns });
    to.step(Code.l2Normalize, chunks, [
      to.at(x),
      to.at(y),
      to.at(norm),
      rows,
      columns,
      real(op.attrs.eps),
      perChunk,
    ]);
  },

  l2NormalizeBackward(op, to) {
    const { dy, y, norm } = op.in, { eps, accumulate } = op.attrs;
    const [rows, columns] = asMatrix(y), { chunks, perChunk } = cut(to, rows, { weight: 2 * columns });
    to.step(Code.l2NormalizeBackward, chunks, [
      to.at(dy),
      to.at(y),
      to.at(norm),
      to.at(op.out.dx),
      rows,
      columns,
      real(eps),
      perChunk,
      flag(accumulate),
    ]);
  },

  weightNorm(op, to) {
    const { v, gain } = op.in, { weight, norm } = op.out;
    const [rows, columns] = asMatrix(v), { chunks, perChunk } = cut(to, rows, { weight: 2 * columns });
    to.step(Code.weightNorm, chunks, [to.at(v), to.at(gain), to.at(weight), to.at(norm), rows, columns, perChunk]);
  },

  weightNormBackward(op, to) {
    const { dweight, v, gain, norm } = op.in, { dv, dgain } = op.out;
    const [rows, columns] = asMatrix(v), { chunks, perChunk } = cut(to, rows, { weight: 2 * columns });
    to.step(Code.weightNormBackward, chunks, [
      to.at(dweight),
      to.at(v),
      to.at(gain),
      to.at(norm),
      to.at(dv),
      to.at(dgain),
      rows,
      columns,
      perChunk,
      flag(op.attrs.accumulate),
    ]);
  },
};
