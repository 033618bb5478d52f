// Rectifiers and pooling.
import { windowExtents } from "../../models/graph/ops/pooling.ts";
import { asMatrix } from "../../models/graph/program.ts";
import { size } from "../../models/graph/tensor.ts";
import { Code } from "../codes.ts";
import { cut, flag, type Lowerings, real } from "../lowering.ts";

export const poolingLowerings: Lowerings = {
  relu(op, to) {
    const n = size(op.out.y), { chunks, perChunk } = cut(to, n, { multiple: 8 });
    to.step(Code.relu, chunks, [to.at(op.in.x), to.at(op.in.residual), to.at(op.out.y), n, perChunk]);
  },

  reluBackward(op, to) {
    const n = size(op.out.dx), { chunks, perChunk } = cut(to, n, { multiple: 8 });
    const { dy, y } = op.in;
    to.step(Code.reluBackward, chunks, [
      to.at(dy),
      to.at(y),
      to.at(op.out.dx),
      n,
      perChunk,
      flag(op.attrs.accumulate),
    ]);
  },

  maxPool(op, to) {
    const { H, W, kh, outH, outW, stride, padding } = windowExtents(op.attrs), [rows, C] = asMatrix(op.out.y);
    const { chunks, perChunk } = cut(to, rows, { weight: C * kh * kh });
    to.step(Code.maxPool, chunks, [
      to.at(op.in.x),
      to.at(op.out.y),
      to.at(op.out.tap),
      rows,
      C,
      H,
      W,
      kh,
      outH,
      outW,
      stride,
      padding,
      perChunk,
    ]);
  },

  maxPoolBackward(op, to) {
    const { H, W, kh, outH, outW, stride, padding } = windowExtents(op.attrs), [rows, C] = asMatrix(op.out.dx);
    const { chunks, perChunk } = cut(to, rows, { weight: C * kh });
    to.step(Code.maxPoolBackward, chunks, [
      to.at(op.in.dy),
      to.at(op.in.tap),
      to.at(op.out.dx),
      rows,
      C,
      H,
      W,
      kh,
      outH,
      outW,
      stride,
      padding,
      flag(op.attrs.accumulate),
      perChunk,
    ]);
  },

  averagePool(op, to) {
    const [rows, C] = asMatrix(op.in.x), { images } = op.attrs, perImage = rows / images;
    to.step(Code.averagePool, images, [to.at(op.in.x), to.at(op.out.y), perImage, C, real(1 / perImage)]);
  },

  averagePoolBackward(op, to) {
    const [rows, C] = asMatrix(op.out.dx), { images, accumulate } = op.attrs, perImage = rows / images;
    const { dy } = op.in, { dx } = op.out;
    to.step(Code.averagePoolBackward, images, [
      to.at(dy),
      to.at(dx),
      perImage,
      C,
      real(1 / perImage),
      flag(accumulate),
    ]);
  },
};
