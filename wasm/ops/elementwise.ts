// Elementwise operations and sums.
import { asMatrix } from "../../models/graph/program.ts";
import { byteLength, size } from "../../models/graph/tensor.ts";
import { Code } from "../codes.ts";
import { cut, flag, type Lowerings, real, requirePlain } from "../lowering.ts";

export const elementwiseLowerings: Lowerings = {
  add(op, to) {
    const n = size(op.out.y), { chunks, perChunk } = cut(to, n, { multiple: 8 });
    to.step(Code.add, chunks, [to.at(op.in.a), to.at(op.in.b), to.at(op.out.y), n, perChunk]);
  },

  copy(op, to) {
    const bytes = byteLength(op.out.y), { chunks, perChunk } = cut(to, bytes, { weight: 1 / 4, multiple: 64 });
    to.step(Code.copy, chunks, [to.at(op.in.x), to.at(op.out.y), bytes, perChunk]);
  },

  gelu(op, to) {
    const n = size(op.out.y), { chunks, perChunk } = cut(to, n, { weight: 8, multiple: 8 });
    to.step(Code.gelu, chunks, [to.at(op.in.x), to.at(op.out.y), n, perChunk]);
  },

  geluBackward(op, to) {
    const n = size(op.out.dx), { chunks, perChunk } = cut(to, n, { weight: 8, multiple: 8 });
    const { dy, x } = op.in;
    to.step(Code.geluBackward, chunks, [
      to.at(dy),
      to.at(x),
      to.at(op.out.dx),
      n,
      perChunk,
      flag(op.attrs.accumulate),
    ]);
  },

  scaleRows(op, to) {
    const [rows, columns] = asMatrix(op.in.x), { chunks, perChunk } = cut(to, rows, { weight: columns });
    const { x, scale } = op.in;
    to.step(Code.scaleRows, chunks, [
      to.at(x),
      to.at(scale),
      to.at(op.out.y),
      rows,
      columns,
      rows / size(scale),
      perChunk,
    ]);
  },

  columnSum(op, to) {
    requirePlain(op.kind, op.in.scale === undefined);
    const [rows, columns] = asMatrix(op.in.x), { chunks, perChunk } = cut(to, columns, { weight: rows, multiple: 16 });
    to.step(Code.columnSum, chunks, [
      to.at(op.in.x),
      to.at(op.out.y),
      rows,
      columns,
      perChunk,
      flag(op.attrs.accumulate),
    ]);
  },

  sum(op, to) {
    const { scale, accumulate } = op.attrs;
    to.step(Code.sum, 1, [to.at(op.in.x), to.at(op.out.y), size(op.in.x), real(scale), flag(accumulate)]);
  },
};
