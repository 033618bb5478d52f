// What XCiT alone needs: depthwise convolutions, layer scale, cross-covariance attention.
import { asMatrix } from "../../models/graph/program.ts";
import { covarianceHeadWidth } from "../../models/graph/ops/cross_covariance.ts";
import { size } from "../../models/graph/tensor.ts";
import { Code } from "../codes.ts";
import { cut, cutFixed, flag, type Lowerings } from "../lowering.ts";

/** Row ranges whose gradients of gamma are summed apart: never changes with the number of threads. */
const PARTIALS = 32;

/** Bytes of a row of d floats in the kernel's scratch: whole blocks of 16. */
const padded = (d: number) => Math.ceil(d / 16) * 64;

export const xcitLowerings: Lowerings = {
  depthwiseConv(op, to) {
    const { x, weight, bias } = op.in, { images, height, width, flipped, accumulate } = op.attrs;
    const [C, , k] = weight.shape, lines = images * height;
    const { chunks, perChunk } = cut(to, lines, { weight: width * C * k });
    to.scratch(k * k * C * 4 + 16);
    to.step(Code.depthwiseConv, chunks, [
      to.at(x),
      to.at(weight),
      to.at(bias),
      to.at(op.out.y),
      lines,
      height,
      width,
      C,
      k,
      flag(flipped),
      flag(accumulate),
      perChunk,
    ]);
  },

  depthwiseConvWeightGradient(op, to) {
    const { images, height, width, accumulate } = op.attrs, [C, , k] = op.out.dweight.shape;
    to.scratch(16 * k * k);
    to.step(Code.depthwiseConvWeightGradient, Math.ceil(C / 4), [
      to.at(op.in.dy),
      to.at(op.in.x),
      to.at(op.out.dweight),
      images * height,
      height,
      width,
      C,
      k,
      flag(accumulate),
    ]);
  },

  layerScale(op, to) {
    const { x, gamma, residual, rowScale } = op.in, [rows, columns] = asMatrix(x);
    const { chunks, perChunk } = cut(to, rows, { weight: columns });
    to.step(Code.layerScale, chunks, [
      to.at(x),
      to.at(gamma),
      to.at(residual),
      to.at(rowScale),
      to.at(op.out.y),
      rows,
      columns,
      rowScale ? rows / size(rowScale) : rows,
      perChunk,
    ]);
  },

  layerScaleBackward(op, to) {
    const { dy, x, gamma, rowScale } = op.in, { dx, dgamma } = op.out, [rows, columns] = asMatrix(x);
    const { chunks, perChunk } = cutFixed(rows, columns, PARTIALS);
    const partials = dgamma ? to.workspace(chunks * columns * 4) : 0;
    to.step(Code.layerScaleBackward, chunks, [
      to.at(dy),
      to.at(x),
      to.at(gamma),
      to.at(rowScale),
      to.at(dx),
      partials,
      rows,
      columns,
      rowScale ? rows / size(rowScale) : rows,
      perChunk,
      flag(op.attrs.accumulateX),
    ]);
    if (!dgamma) return;
    const parts = cut(to, columns, { weight: chunks, multiple: 16 });
    const args = [
      partials,
      columns * 4,
      chunks,
      to.at(dgamma),
      columns,
      parts.perChunk,
      flag(op.attrs.accumulateGamma),
    ];
    to.step(Code.sumPartials, parts.chunks, args);
  },

  crossCovariance(op, to) {
    const { images, tokens, heads } = op.attrs, d = covarianceHeadWidth(op.in.qkv, op.attrs);
    to.scratch((2 * padded(d) / 4 + 2 * tokens) * padded(d));
    to.step(Code.crossCovariance, images * heads, [
      to.at(op.in.qkv),
      to.at(op.in.temperature),
      to.at(op.out.y),
      to.at(op.out.cosines),
      to.at(op.out.norms),
      tokens,
      heads,
      d,
    ]);
  },

  crossCovarianceBackward(op, to) {
    const { images, tokens, heads, accumulateTemperature } = op.attrs, d = covarianceHeadWidth(op.in.qkv, op.attrs);
    const { dy, qkv, temperature, cosines, norms } = op.in, { dqkv, dtemperature } = op.out;
    const partials = dtemperature ? to.workspace(images * heads * 4) : 0;
    to.scratch((3 * padded(d) / 4 + 2 + 2 * tokens) * padded(d));
    to.step(Code.crossCovarianceBackward, images * heads, [
      to.at(dy),
      to.at(qkv),
      to.at(temperature),
      to.at(cosines),
      to.at(norms),
      to.at(dqkv),
      partials,
      tokens,
      heads,
      d,
    ]);
    if (!dtemperature) return;
    const args = [partials, heads * 4, images, to.at(dtemperature), heads, heads, flag(accumulateTemperature)];
    to.step(Code.sumPartials, 1, args);
  },
};
