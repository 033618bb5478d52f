// What XCiT alone needs: depthwise convolutions, layer scale, cross-covariance attention.
import { covarianceHeadWidth } from "../../models/graph/ops/cross_covariance.ts";
import type { OpOf } from "../../models/graph/ops/mod.ts";
import { size } from "../../models/graph/tensor.ts";
import type { Binding } from "../dispatch.ts";
import { kernel, type KernelFile } from "../kernels/sources.ts";
import type { Lowering } from "../lowering.ts";
import { chunkRows, emitColumnSum, matrixOf } from "./elementwise.ts";

/** A kernel of one thread an element, of which there are u[0]. */
function each(
  l: Lowering,
  name: KernelFile,
  bindings: readonly Binding[],
  u: readonly number[],
  width: 1 | 4 = 1,
): void {
  l.emit(kernel(name, { width }), bindings, { u }, Math.ceil(u[0] / 256));
}

export function lowerDepthwiseConv(l: Lowering, op: OpOf<"depthwiseConv">): void {
  const { x, weight, bias } = op.in, { height, width, flipped, accumulate } = op.attrs, [C, , k] = weight.shape;
  const u = [size(x), C, height, width, k, ...[flipped, bias !== undefined, accumulate].map(Number)];
  each(l, "depthwise_conv", [l.of(x), l.of(weight), l.of(bias), l.of(op.out.y)], u);
}

export function lowerDepthwiseConvWeightGradient(l: Lowering, op: OpOf<"depthwiseConvWeightGradient">): void {
  const { dy, x } = op.in, { dweight } = op.out, { images, height, width, accumulate } = op.attrs;
  const [C, , k] = dweight.shape, columns = k * k * C, pixels = images * height * width;
  const { chunks, rowsPerChunk } = chunkRows(pixels, Math.ceil(columns / 64));
  const parts = l.scratch(chunks * columns * 4), sum = l.scratch(columns * 4);
  const u = [chunks * columns, C, height, width, k, pixels, rowsPerChunk];
  each(l, "depthwise_conv_weights", [l.of(dy), l.of(x), parts], u);
  emitColumnSum(l, parts, chunks, columns, sum, false);
  each(l, "taps_behind", [sum, l.of(dweight)], [columns, C, k * k, Number(accumulate)]);
}

export function lowerLayerScale(l: Lowering, op: OpOf<"layerScale">): void {
  const { x, gamma, residual, rowScale } = op.in, { rows, columns, width } = matrixOf(x);
  const count = rows * columns / width, groups = rowScale ? size(rowScale) : 1;
  const u = [count, columns / width, count / groups, Number(residual !== undefined), Number(rowScale !== undefined)];
  each(l, "layer_scale", [l.of(x), l.of(gamma), l.of(residual), l.of(rowScale), l.of(op.out.y)], u, width);
}

export function lowerLayerScaleBackward(l: Lowering, op: OpOf<"layerScaleBackward">): void {
  const { dy, x, gamma, rowScale } = op.in, { dx, dgamma } = op.out, { rows, columns, width } = matrixOf(x);
  const count = rows * columns / width,
    groups = rowScale ? size(rowScale) : 1,
    hasScale = Number(groups > 1 || !!rowScale);
  if (dgamma) {
    const { chunks, rowsPerChunk } = chunkRows(rows, Math.ceil(columns / width / 64));
    const parts = l.scratch(chunks * columns * 4);
    const u = [chunks * columns / width, columns / width, rows, rowsPerChunk, rows / groups, hasScale];
    each(l, "layer_scale_gamma", [l.of(dy), l.of(x), l.of(rowScale), parts], u, width);
    emitColumnSum(l, parts, chunks, columns, l.of(dgamma), op.attrs.accumulateGamma);
  }
  if (!dx) return;
  const u = [count, columns / width, count / groups, hasScale, Number(op.attrs.accumulateX)];
  each(l, "layer_scale_backward", [l.of(dy), l.of(gamma), l.of(rowScale), l.of(dx)], u, width);
}

export function lowerCrossCovariance(l: Lowering, op: OpOf<"crossCovariance">): void {
  const { images, tokens: N, heads: H } = op.attrs, d = covarianceHeadWidth(op.in.qkv, op.attrs);
  const elements = images * H * d * d, qkv = l.of(op.in.qkv), cosines = l.of(op.out.cosines);
  const probs = l.scratch(elements * 4);
  each(l, "covariance_products", [qkv, qkv, cosines, l.of(op.out.norms)], [elements, d, H, N, 3 * H * d, 1, 1]);
  each(l, "covariance_probs", [cosines, l.of(op.in.temperature), probs], [images * H * d, d, H]);
  each(l, "covariance_apply", [probs, qkv, l.of(op.out.y)], [images * N * H * d, d, H, N]);
}

export function lowerCrossCovarianceBackward(l: Lowering, op: OpOf<"crossCovarianceBackward">): void {
  const { images, tokens: N, heads: H, accumulateTemperature } = op.attrs, d = covarianceHeadWidth(op.in.qkv, op.attrs);
  const elements = images * H * d * d, rows = images * H * d;
  const [dy, qkv, temperature, cosines, norms] = [op.in.dy, op.in.qkv, op.in.temperature, op.in.cosines, op.in.norms]
    .map((t) => l.of(t));
  const probs = l.scratch(elements * 4), a = l.scratch(elements * 4), shares = l.scratch(2 * rows * 4);
  const warmth = l.scratch(rows * 4);
  each(l, "covariance_probs", [cosines, temperature, probs], [rows, d, H]);
  each(l, "covariance_products", [dy, qkv, a, norms], [elements, d, H, N, H * d, 2, 0]);
  each(l, "covariance_scores", [probs, a, cosines, norms, temperature, warmth], [rows, d, H, images]);
  each(l, "covariance_shares", [a, cosines, norms, shares], [2 * rows, d]);
  each(l, "covariance_gradient", [dy, qkv, a, probs, shares, l.of(op.out.dqkv)], [3 * N * rows, d, H, N]);
  const { dtemperature } = op.out;
  if (!dtemperature) return;
  // A workgroup for each head adds up its share of warmth [heads, images·d].
  const sum = kernel("sum", { with: ["rows"], constants: { LANES: 256 } });
  const u = [rows, images * d, Number(accumulateTemperature)];
  l.emit(sum, [warmth, l.of(dtemperature)], { u, f: [1] }, H);
}
