// Convolutions over channels-last images: a row of a matrix is a pixel, so that one of 1×1 is a matrix product.
import { type Program, require } from "../program.ts";
import { size, type Tensor } from "../tensor.ts";
import { emitColumnSum } from "./elementwise.ts";
import { linear } from "./matmul.ts";
import type { Operation, OpRule } from "./rule.ts";

/** Images as rows: [images·height·width, channels], left to right, top to bottom, image by image. */
export interface Grid {
  /** B. */
  readonly images: number;
  /** Rows of pixels. */
  readonly height: number;
  /** Pixels of a row. */
  readonly width: number;
}

/** Where a window stands: its step, and the zeros around the image, both the same on each side. */
export interface Stride {
  /** Pixels from one window to the next. */
  readonly stride: number;
  /** Pixels added on each side. */
  readonly padding: number;
}

/**
 * y[b, oy, ox, o] = bias[o] + Σ_c,ky,kx weight[o, c, ky, kx]·x[b, oy·stride + ky − padding, ox·stride + kx − padding, c],
 * pixels outside x count as 0. x [B·H·W, C], y [B·outH·outW, O], weight [O, C, kh, kw] as PyTorch stores it.
 */
export type Conv2dOp = Operation<"conv2d", { x: Tensor; weight: Tensor; bias?: Tensor }, { y: Tensor }, Grid & Stride>;

/** dx (+)= the gradient of conv2d's `x`; the grid in the attributes is that of x. */
export type Conv2dInputGradientOp = Operation<
  "conv2dInputGradient",
  { dy: Tensor; weight: Tensor },
  { dx: Tensor },
  Grid & Stride & { accumulate: boolean }
>;

/** dweight [O, C, kh, kw] (+)= the gradient of conv2d's weight. */
export type Conv2dWeightGradientOp = Operation<
  "conv2dWeightGradient",
  { dy: Tensor; x: Tensor },
  { dweight: Tensor },
  Grid & Stride & { accumulate: boolean }
>;

/** The grid after a window of `kernelHeight`×`kernelWidth` has passed. Throws {RangeError} when the window does not fit. */
export function windowedGrid(
  { images, height, width }: Grid,
  { stride, padding }: Stride,
  kernelHeight: number,
  kernelWidth = kernelHeight,
): Grid {
  const out = (side: number, kernel: number) => Math.floor((side + 2 * padding - kernel) / stride) + 1;
  require(
    height + 2 * padding >= kernelHeight && width + 2 * padding >= kernelWidth,
    "conv2d",
    () =>
      `window ${kernelHeight}×${kernelWidth} is larger than ${height}×${width} with padding ${padding}: use larger images`,
  );
  return { images, height: out(height, kernelHeight), width: out(width, kernelWidth) };
}

/** Extents of a convolution: channels C in, O out, window kh×kw, grid of x (H, W) and of y (outH, outW). */
export interface Conv2dExtents {
  readonly images: number;
  readonly C: number;
  readonly H: number;
  readonly W: number;
  readonly O: number;
  readonly kh: number;
  readonly kw: number;
  readonly outH: number;
  readonly outW: number;
  readonly stride: number;
  readonly padding: number;
}

/** Extents from the attributes and the shape of the weight. */
export function conv2dExtents(attrs: Grid & Stride, weight: Pick<Tensor, "shape">): Conv2dExtents {
  const [O, C, kh, kw] = weight.shape;
  const { images, height: H, width: W, stride, padding } = attrs;
  const out = windowedGrid(attrs, attrs, kh, kw);
  return { images, C, H, W, O, kh, kw, outH: out.height, outW: out.width, stride, padding };
}

/**
 * Convolves x [B·H·W, C] with weight [O, C, kh, kw]; a 1×1 window of stride 1 is a matrix product.
 *
 * @returns y [B·outH·outW, O] and its grid
 */
export function conv2d(
  p: Program,
  x: Tensor,
  grid: Grid,
  weight: Tensor,
  { stride = 1, padding = 0, bias }: Partial<Stride> & { bias?: Tensor } = {},
): { y: Tensor; grid: Grid } {
  const [O, C, kh, kw] = weight.shape;
  const { images, height, width } = grid;
  require(
    weight.shape.length === 4 && size(x) === images * height * width * C,
    "conv2d",
    () =>
      `x [${x.shape}] is not ${images}·${height}·${width} pixels of the ${C} channels of ${weight.name} [${weight.shape}]`,
  );
  require(!bias || size(bias) === O, "conv2d", () => `bias [${bias!.shape}] should hold ${O}`);
  const to = windowedGrid(grid, { stride, padding }, kh, kw);
  if (kh === 1 && kw === 1 && stride === 1 && padding === 0) return { y: linear(p, x, weight, bias), grid: to };
  const y = p.activation(`conv2d(${weight.name})`, [images * to.height * to.width, O]);
  p.emit<Conv2dOp>({
    kind: "conv2d",
    in: { x, weight, bias },
    out: { y },
    attrs: { images, height, width, stride, padding },
  });
  return { y, grid: to };
}

/** Calls `visit` for every pair of an output row and the input row a tap of the window falls on. */
export function forEachTap(
  e: Omit<Conv2dExtents, "C" | "O">,
  visit: (row: number, from: number, tap: number) => void,
): void {
  for (let b = 0; b < e.images; b++) {
    for (let oy = 0; oy < e.outH; oy++) {
      for (let ox = 0; ox < e.outW; ox++) {
        const row = (b * e.outH + oy) * e.outW + ox;
        for (let tap = 0; tap < e.kh * e.kw; tap++) {
          const iy = oy * e.stride + Math.floor(tap / e.kw) - e.padding, ix = ox * e.stride + tap % e.kw - e.padding;
          if (iy >= 0 && iy < e.H && ix >= 0 && ix < e.W) visit(row, (b * e.H + iy) * e.W + ix, tap);
        }
      }
    }
  }
}

export const conv2dRule: OpRule<Conv2dOp> = {
  reference(op, at) {
    const e = conv2dExtents(op.attrs, op.in.weight), { C, O } = e, taps = e.kh * e.kw;
    const x = at(op.in.x), weight = at(op.in.weight), bias = op.in.bias && at(op.in.bias), y = at(op.out.y);
    for (let i = 0; i < y.length; i++) y[i] = bias ? bias[i % O] : 0;
    forEachTap(e, (row, from, tap) => {
      for (let o = 0; o < O; o++) {
        for (let c = 0; c < C; c++) y[row * O + o] += weight[(o * C + c) * taps + tap] * x[from * C + c];
      }
    });
  },
  gradient(op, g) {
    const dy = g.of(op.out.y);
    if (!dy) return;
    const { x, weight, bias } = op.in;
    const dbias = g.target(bias);
    if (dbias) emitColumnSum(g.program, dy, dbias);
    const dweight = g.target(weight);
    if (dweight) {
      g.program.emit<Conv2dWeightGradientOp>({
        kind: "conv2dWeightGradient",
        in: { dy, x },
        out: { dweight: dweight.tensor },
        attrs: { ...op.attrs, accumulate: dweight.accumulate },
      });
    }
    const dx = g.target(x);
    if (dx) {
      g.program.emit<Conv2dInputGradientOp>({
        kind: "conv2dInputGradient",
        in: { dy, weight },
        out: { dx: dx.tensor },
        attrs: { ...op.attrs, accumulate: dx.accumulate },
      });
    }
  },
};

export const conv2dInputGradientRule: OpRule<Conv2dInputGradientOp> = {
  readsOutput: (op) => op.attrs.accumulate ? ["dx"] : [],
  reference(op, at) {
    const e = conv2dExtents(op.attrs, op.in.weight), { C, O } = e, taps = e.kh * e.kw;
    const dy = at(op.in.dy), weight = at(op.in.weight), dx = at(op.out.dx);
    if (!op.attrs.accumulate) dx.fill(0);
    forEachTap(e, (row, from, tap) => {
      for (let o = 0; o < O; o++) {
        for (let c = 0; c < C; c++) dx[from * C + c] += weight[(o * C + c) * taps + tap] * dy[row * O + o];
      }
    });
  },
};

export const conv2dWeightGradientRule: OpRule<Conv2dWeightGradientOp> = {
  readsOutput: (op) => op.attrs.accumulate ? ["dweight"] : [],
  reference(op, at) {
    const e = conv2dExtents(op.attrs, op.out.dweight), { C, O } = e, taps = e.kh * e.kw;
    const dy = at(op.in.dy), x = at(op.in.x), dweight = at(op.out.dweight);
    if (!op.attrs.accumulate) dweight.fill(0);
    forEachTap(e, (row, from, tap) => {
      for (let o = 0; o < O; o++) {
        for (let c = 0; c < C; c++) dweight[(o * C + c) * taps + tap] += dy[row * O + o] * x[from * C + c];
      }
    });
  },
};
