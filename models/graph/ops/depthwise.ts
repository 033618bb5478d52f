// Depthwise convolutions over channels-last images: each channel has a small window of its own.
import { type Program, require } from "../program.ts";
import { size, type Tensor } from "../tensor.ts";
import type { Grid } from "./convolution.ts";
import { emitColumnSum } from "./elementwise.ts";
import type { Operation, OpRule } from "./rule.ts";

/**
 * y[b, oy, ox, c] (+)= bias[c] + Σ_ky,kx weight[c, 0, ky, kx]·x[b, oy + ky − r, ox + kx − r, c] with r = (k − 1)/2; pixels outside x
 * count as 0, so that y has the extents of x. x, y [B·H·W, C], weight [C, 1, k, k] with k odd. `flipped` turns the window upside
 * down and around, which makes it the gradient of the input.
 */
export type DepthwiseConvOp = Operation<
  "depthwiseConv",
  { x: Tensor; weight: Tensor; bias?: Tensor },
  { y: Tensor },
  Grid & { flipped: boolean; accumulate: boolean }
>;

/** dweight[c, 0, ky, kx] (+)= Σ_b,oy,ox dy[b, oy, ox, c]·x[b, oy + ky − r, ox + kx − r, c]. */
export type DepthwiseConvWeightGradientOp = Operation<
  "depthwiseConvWeightGradient",
  { dy: Tensor; x: Tensor },
  { dweight: Tensor },
  Grid & { accumulate: boolean }
>;

/** Convolves each channel of x [B·H·W, C] with its own window of weight [C, 1, k, k], at stride 1, keeping the extents. */
export function depthwiseConv(p: Program, x: Tensor, grid: Grid, weight: Tensor, bias?: Tensor): Tensor {
  const [C, one, k, kw] = weight.shape;
  const { images, height, width } = grid;
  require(
    weight.shape.length === 4 && one === 1 && k === kw && k % 2 === 1,
    "depthwiseConv",
    () => `weight [${weight.shape}] should be [channels, 1, k, k] with k odd`,
  );
  require(
    size(x) === images * height * width * C && (!bias || size(bias) === C),
    "depthwiseConv",
    () => `x [${x.shape}] is not ${images}·${height}·${width} pixels of the ${C} channels of ${weight.name}`,
  );
  const y = p.activation(`depthwise(${weight.name})`, x.shape);
  const attrs = { images, height, width, flipped: false, accumulate: false };
  p.emit<DepthwiseConvOp>({ kind: "depthwiseConv", in: { x, weight, bias }, out: { y }, attrs });
  return y;
}

/** Calls `visit` for every output pixel and the input pixel each tap of its window falls on. */
function forEachTap(
  { images, height, width }: Grid,
  k: number,
  visit: (to: number, from: number, tap: number) => void,
) {
  const reach = (k - 1) / 2;
  for (let row = 0; row < images * height; row++) {
    for (let ox = 0; ox < width; ox++) {
      for (let tap = 0; tap < k * k; tap++) {
        const dy = Math.floor(tap / k) - reach, ix = ox + tap % k - reach, iy = row % height + dy;
        if (iy >= 0 && iy < height && ix >= 0 && ix < width) visit(row * width + ox, (row + dy) * width + ix, tap);
      }
    }
  }
}

export const depthwiseConvRule: OpRule<DepthwiseConvOp> = {
  readsOutput: (op) => op.attrs.accumulate ? ["y"] : [],
  reference(op, at) {
    const [C, , k] = op.in.weight.shape, taps = k * k;
    const x = at(op.in.x), weight = at(op.in.weight), bias = op.in.bias && at(op.in.bias), y = at(op.out.y);
    const { flipped, accumulate } = op.attrs;
    for (let i = 0; i < y.length; i++) y[i] = (accumulate ? y[i] : 0) + (bias ? bias[i % C] : 0);
    forEachTap(op.attrs, k, (to, from, tap) => {
      const w = flipped ? taps - 1 - tap : tap;
      for (let c = 0; c < C; c++) y[to * C + c] += weight[c * taps + w] * x[from * C + c];
    });
  },
  gradient(op, g) {
    const dy = g.of(op.out.y);
    if (!dy) return;
    const { images, height, width } = op.attrs, grid = { images, height, width };
    const { x, weight, bias } = op.in;
    const dbias = g.target(bias);
    if (dbias) emitColumnSum(g.program, dy, dbias);
    const dweight = g.target(weight);
    if (dweight) {
      g.program.emit<DepthwiseConvWeightGradientOp>({
        kind: "depthwiseConvWeightGradient",
        in: { dy, x },
        out: { dweight: dweight.tensor },
        attrs: { ...grid, accumulate: dweight.accumulate },
      });
    }
    const dx = g.target(x);
    if (!dx) return;
    g.program.emit<DepthwiseConvOp>({
      kind: "depthwiseConv",
      in: { x: dy, weight },
      out: { y: dx.tensor },
      attrs: { ...grid, flipped: !op.attrs.flipped, accumulate: dx.accumulate },
    });
  },
};

export const depthwiseConvWeightGradientRule: OpRule<DepthwiseConvWeightGradientOp> = {
  readsOutput: (op) => op.attrs.accumulate ? ["dweight"] : [],
  reference(op, at) {
    const [C, , k] = op.out.dweight.shape, taps = k * k;
    const dy = at(op.in.dy), x = at(op.in.x), dweight = at(op.out.dweight);
    if (!op.attrs.accumulate) dweight.fill(0);
    forEachTap(op.attrs, k, (to, from, tap) => {
      for (let c = 0; c < C; c++) dweight[c * taps + tap] += dy[to * C + c] * x[from * C + c];
    });
  },
};
