// Pooling over channels-last images: the largest of a window, and the mean of a whole image.
import { asMatrix, type Program, require } from "../program.ts";
import { size, type Tensor, tensor } from "../tensor.ts";
import { forEachTap, type Grid, type Stride, windowedGrid } from "./convolution.ts";
import type { Operation, OpRule } from "./rule.ts";

/** A square window of `kernel` pixels over the grid of x. */
export interface Window extends Grid, Stride {
  /** Side in pixels. */
  readonly kernel: number;
}

/**
 * y[b, oy, ox, c] = the largest x of the window, pixels outside do not count; NaN wins. `tap` i32, as y, is which pixel of the
 * window it was, ky·kernel + kx; of equals the first, as in PyTorch. x [B·H·W, C], y [B·outH·outW, C].
 */
export type MaxPoolOp = Operation<"maxPool", { x: Tensor }, { y: Tensor; tap?: Tensor }, Window>;

/** dx[pixel] (+)= Σ dy of the windows whose largest it was. */
export type MaxPoolBackwardOp = Operation<
  "maxPoolBackward",
  { dy: Tensor; tap: Tensor },
  { dx: Tensor },
  Window & { accumulate: boolean }
>;

/** y[b, c] = mean over the pixels of image b. x [images·pixels, C], y [images, C]. */
export type AveragePoolOp = Operation<"averagePool", { x: Tensor }, { y: Tensor }, { images: number }>;

/** dx[pixel of b, c] (+)= dy[b, c] / pixels. */
export type AveragePoolBackwardOp = Operation<
  "averagePoolBackward",
  { dy: Tensor },
  { dx: Tensor },
  { images: number; accumulate: boolean }
>;

/** Extents of a window over a grid, as {@link forEachTap} takes them. */
export function windowExtents(w: Window) {
  const { height: outH, width: outW } = windowedGrid(w, w, w.kernel);
  const { images, height: H, width: W, kernel, stride, padding } = w;
  return { images, H, W, kh: kernel, kw: kernel, outH, outW, stride, padding };
}

/** Largest value of each window of x [B·H·W, C]. */
export function maxPool(
  p: Program,
  x: Tensor,
  grid: Grid,
  { kernel, stride, padding }: Stride & { kernel: number },
): { y: Tensor; grid: Grid } {
  const { images, height, width } = grid, C = asMatrix(x)[1];
  require(
    size(x) === images * height * width * C,
    "maxPool",
    () => `x [${x.shape}] is not ${images}·${height}·${width} rows`,
  );
  require(
    padding * 2 <= kernel,
    "maxPool",
    () => `padding ${padding} is more than half of kernel ${kernel}: a window could be empty`,
  );
  const to = windowedGrid(grid, { stride, padding }, kernel);
  const shape = [images * to.height * to.width, C];
  const y = p.activation(`maxPool(${x.name})`, shape), tap = tensor(`${y.name}.tap`, shape, "activation", "i32");
  p.emit<MaxPoolOp>({
    kind: "maxPool",
    in: { x },
    out: { y, tap },
    attrs: { images, height, width, kernel, stride, padding },
  });
  return { y, grid: to };
}

/** Mean of each image's rows: [images·pixels, C] → [images, C]. */
export function averagePool(p: Program, x: Tensor, images: number): Tensor {
  const [rows, C] = asMatrix(x);
  require(
    images > 0 && rows % images === 0,
    "averagePool",
    () => `${rows} rows of x [${x.shape}] are not ${images} images`,
  );
  const y = p.activation(`averagePool(${x.name})`, [images, C]);
  p.emit<AveragePoolOp>({ kind: "averagePool", in: { x }, out: { y }, attrs: { images } });
  return y;
}

export const maxPoolRule: OpRule<MaxPoolOp> = {
  optionalOutputs: ["tap"],
  reference(op, at) {
    const x = at(op.in.x), y = at(op.out.y), taps = op.out.tap && at(op.out.tap), C = asMatrix(op.in.x)[1];
    y.fill(-Infinity);
    const seen = new Uint8Array(y.length);
    forEachTap(windowExtents(op.attrs), (row, from, tap) => {
      for (let c = 0; c < C; c++) {
        const v = x[from * C + c], i = row * C + c;
        if (seen[i] && !(v > y[i]) && !Number.isNaN(v)) continue;
        seen[i] = 1;
        y[i] = v;
        if (taps) taps[i] = tap;
      }
    });
  },
  gradient(op, g) {
    const dy = g.of(op.out.y);
    const target = dy && g.target(op.in.x);
    if (!target) return;
    g.program.emit<MaxPoolBackwardOp>({
      kind: "maxPoolBackward",
      in: { dy, tap: op.out.tap! },
      out: { dx: target.tensor },
      attrs: { ...op.attrs, accumulate: target.accumulate },
    });
  },
};

export const maxPoolBackwardRule: OpRule<MaxPoolBackwardOp> = {
  readsOutput: (op) => op.attrs.accumulate ? ["dx"] : [],
  reference(op, at) {
    const dy = at(op.in.dy), taps = at(op.in.tap), dx = at(op.out.dx), C = asMatrix(op.out.dx)[1];
    if (!op.attrs.accumulate) dx.fill(0);
    forEachTap(windowExtents(op.attrs), (row, from, tap) => {
      for (let c = 0; c < C; c++) if (taps[row * C + c] === tap) dx[from * C + c] += dy[row * C + c];
    });
  },
};

export const averagePoolRule: OpRule<AveragePoolOp> = {
  reference(op, at) {
    const x = at(op.in.x), y = at(op.out.y), C = asMatrix(op.in.x)[1], perImage = x.length / op.attrs.images;
    y.fill(0);
    for (let i = 0; i < x.length; i++) y[Math.floor(i / perImage) * C + i % C] += x[i] / (perImage / C);
  },
  gradient(op, g) {
    const dy = g.of(op.out.y);
    const target = dy && g.target(op.in.x);
    if (!target) return;
    g.program.emit<AveragePoolBackwardOp>({
      kind: "averagePoolBackward",
      in: { dy },
      out: { dx: target.tensor },
      attrs: { images: op.attrs.images, accumulate: target.accumulate },
    });
  },
};

export const averagePoolBackwardRule: OpRule<AveragePoolBackwardOp> = {
  readsOutput: (op) => op.attrs.accumulate ? ["dx"] : [],
  reference(op, at) {
    const dy = at(op.in.dy), dx = at(op.out.dx), C = asMatrix(op.out.dx)[1], perImage = dx.length / op.attrs.images;
    for (let i = 0; i < dx.length; i++) {
      const v = dy[Math.floor(i / perImage) * C + i % C] / (perImage / C);
      dx[i] = op.attrs.accumulate ? dx[i] + v : v;
    }
  },
};
