// What changes parameters.
import { size, type Tensor } from "../../models/graph/tensor.ts";
import { Code } from "../codes.ts";
import { cut, flag, type Lowering, type Lowerings, real } from "../lowering.ts";

/** Most elements of a piece: 16 KiB of each arena, so that a piece of all five stays in L2. */
const PIECE = 4096;

/** Cuts the arena into pieces that belong to one tensor each; their number is bounded by the shapes alone. */
function pieces(segments: Tensor, arena: Tensor, to: Lowering): { table: number; capacity: number } {
  const S = segments.shape[0], capacity = S + Math.floor(size(arena) / PIECE);
  const table = to.workspace(capacity * 16);
  to.step(Code.cutPieces, 1, [to.at(segments), S, table, capacity, PIECE]);
  return { table, capacity };
}

const METHODS = { adamw: 0, sgd: 1, lars: 2 } as const;

export const optimizerLowerings: Lowerings = {
  gradientNorms(op, to) {
    const { grad, param, segments } = op.in, { table, capacity } = pieces(segments, grad, to);
    const partials = to.workspace(capacity * 24);
    to.step(Code.gradientNorms, capacity, [to.at(grad), to.at(param), table, partials]);
    to.step(Code.reduceNorms, 1, [table, capacity, partials, to.at(op.out.norms), segments.shape[0]]);
  },

  optimizerUpdate(op, to) {
    const { grad, norms, groups, segments, teacherMomentum, frozen } = op.in,
      { param, first, second, teacher } = op.out;
    const { method, beta1, beta2, eps, momentum, eta } = op.attrs;
    const { table, capacity } = pieces(segments, grad, to);
    to.scratch(64);
    to.step(Code.optimizerUpdate, capacity, [
      table,
      to.at(param),
      to.at(grad),
      to.at(first),
      to.at(second),
      to.at(norms),
      to.at(groups),
      to.at(teacher),
      to.at(teacherMomentum),
      to.at(frozen),
      METHODS[method],
      real(beta1),
      real(1 - beta1),
      real(beta2),
      real(1 - beta2),
      real(eps),
      real(momentum),
      real(eta),
    ]);
  },

  ema(op, to) {
    const { source, momentum, frozen } = op.in, { target } = op.out, n = size(target);
    const { chunks, perChunk } = cut(to, n, { multiple: 16 });
    to.scratch(64);
    to.step(Code.ema, chunks, [to.at(source), to.at(target), to.at(momentum), to.at(frozen), n, perChunk]);
  },

  checkFinite(op, to) {
    const n = size(op.in.x), { chunks, perChunk } = cut(to, n, { multiple: 16 });
    to.step(Code.checkFinite, chunks, [to.at(op.in.x), to.at(op.out.flag), n, perChunk]);
  },

  record(op, to) {
    const { values, row } = op.in;
    to.step(Code.record, 1, [to.at(values), to.at(row), to.at(op.out.ring), size(values), flag(row.dtype !== "f32")]);
  },
};
