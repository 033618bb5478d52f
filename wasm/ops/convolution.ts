// Convolutions: windows written out as rows of a matrix, a part of them at a time, times the filters.
import { type Conv2dExtents, conv2dExtents } from "../../models/graph/ops/convolution.ts";
import type { MatmulOp } from "../../models/graph/ops/matmul.ts";
import { type Tensor, tensor } from "../../models/graph/tensor.ts";
import { Code } from "../codes.ts";
import { cut, flag, type Lowering, type Lowerings } from "../lowering.ts";
import { matmulLowerings } from "./matmul.ts";

/** Bytes of windows written out at a time at least: they are read again before they leave the caches. */
const WINDOW_BYTES = 2 << 20;

/** Rows written out at a time, over the number of filters: each part reads (or adds to) all filters once more. */
const ROWS_PER_FILTER = 2;

/** Rows of windows that are written out at a time. */
function partRows(e: Conv2dExtents): number {
  return Math.max(Math.floor(WINDOW_BYTES / (depthOf(e) * 4)), ROWS_PER_FILTER * e.O);
}

/** Matrices at known addresses, which the lowering of a product takes for tensors. */
class Places {
  readonly #addresses = new Map<Tensor, number>();
  readonly #spaces: { address: number; bytes: number }[] = [];

  matrix(address: number, rows: number, columns: number): Tensor {
    const made = tensor("part", [rows, columns], "activation");
    this.#addresses.set(made, address);
    return made;
  }

  /** Lowers a product of such matrices. */
  multiply(to: Lowering, operands: MatmulOp["in"], c: Tensor, attrs: Partial<MatmulOp["attrs"]>): void {
    const at = (t: Tensor | undefined) => t && this.#addresses.has(t) ? this.#addresses.get(t)! : to.at(t);
    let used = 0;
    const workspace = (bytes: number) => { // one product after the other: each may have what the last one had
      const had = this.#spaces[used];
      if (!had || had.bytes < bytes) this.#spaces[used] = { address: to.workspace(bytes), bytes };
      return this.#spaces[used++].address;
    };
    const plain = { transA: false, transB: false, epilogue: "none" as const, accumulate: false };
    matmulLowerings.matmul!({ kind: "matmul", in: operands, out: { c }, attrs: { ...plain, ...attrs } }, {
      ...to,
      at,
      workspace,
    });
  }
}

export const convolutionLowerings: Lowerings = {
  conv2d(op, to) {
    const e = conv2dExtents(op.attrs, op.in.weight), { O } = e, places = new Places();
    const filters = places.matrix(filtersByTap(e, op.in.weight, to), O, depthOf(e));
    const inParts = windowsInParts(e, op.in.x, to);
    inParts((first, rows, windows) => {
      const y = places.matrix(to.at(op.out.y) + first * O * 4, rows, O);
      const a = places.matrix(windows, rows, depthOf(e));
      places.multiply(to, { a, b: filters, bias: op.in.bias }, y, { transB: true });
    });
  },

  conv2dWeightGradient(op, to) {
    const e = conv2dExtents(op.attrs, op.out.dweight), { O, C } = e, depth = depthOf(e), taps = e.kh * e.kw;
    const places = new Places(), direct = taps === 1, { accumulate } = op.attrs;
    const address = direct ? to.at(op.out.dweight) : to.workspace(O * depth * 4);
    const sum = places.matrix(address, O, depth);
    windowsInParts(e, op.in.x, to)((first, rows, windows) => {
      const dy = places.matrix(to.at(op.in.dy) + first * O * 4, rows, O), b = places.matrix(windows, rows, depth);
      places.multiply(to, { a: dy, b }, sum, { transA: true, accumulate: first > 0 || direct && accumulate });
    });
    if (direct) return;
    const { chunks, perChunk } = cut(to, O, { weight: depth });
    to.step(Code.tapsBehind, chunks, [address, to.at(op.out.dweight), O, C, taps, perChunk, flag(accumulate)]);
  },

  conv2dInputGradient(op, to) {
    const e = conv2dExtents(op.attrs, op.in.weight), { O, C, H, W, outH, outW } = e, depth = depthOf(e);
    const places = new Places(), filters = places.matrix(filtersByTap(e, op.in.weight, to), O, depth);
    // A pixel belongs to windows above and below it, so parts are whole images.
    const most = Math.max(1, Math.min(e.images, Math.floor(partRows(e) / (outH * outW))));
    const columns = to.workspace(most * outH * outW * depth * 4);
    for (let image = 0; image < e.images; image += most) {
      const images = Math.min(most, e.images - image), rows = images * outH * outW, pixels = images * H * W;
      const dy = places.matrix(to.at(op.in.dy) + image * outH * outW * O * 4, rows, O);
      places.multiply(to, { a: dy, b: filters }, places.matrix(columns, rows, depth), {});
      const { chunks, perChunk } = cut(to, pixels, { weight: depth });
      to.step(Code.col2im, chunks, [
        to.at(op.out.dx),
        columns,
        image,
        pixels,
        C,
        H,
        W,
        e.kh,
        e.kw,
        outH,
        outW,
        e.stride,
        e.padding,
        flag(op.attrs.accumulate),
        perChunk,
      ]);
    }
  },
};

/** Elements of a window, K. */
function depthOf({ C, kh, kw }: Conv2dExtents): number {
  return C * kh * kw;
}

/** Address of the filters as [O, taps, C], the order in which windows hold their elements. */
function filtersByTap(e: Conv2dExtents, weight: Tensor, to: Lowering): number {
  const taps = e.kh * e.kw;
  if (taps === 1) return to.at(weight);
  const address = to.workspace(e.O * depthOf(e) * 4);
  const { chunks, perChunk } = cut(to, e.O, { weight: depthOf(e) });
  to.step(Code.tapsBefore, chunks, [to.at(weight), address, e.O, e.C, taps, perChunk]);
  return address;
}

/** Writes windows out, some rows at a time, and has each part used before the next is written. */
function windowsInParts(e: Conv2dExtents, x: Tensor, to: Lowering) {
  const { C, H, W, kh, kw, outH, outW, stride, padding } = e;
  const all = e.images * outH * outW, depth = depthOf(e);
  const most = Math.min(all, partRows(e));
  const windows = to.workspace(most * depth * 4);
  return (use: (first: number, rows: number, windows: number) => void) => {
    for (let first = 0; first < all; first += most) {
      const rows = Math.min(most, all - first), { chunks, perChunk } = cut(to, rows, { weight: depth });
      to.step(Code.im2col, chunks, [
        to.at(x),
        windows,
        first,
        rows,
        C,
        H,
        W,
        kh,
        kw,
        outH,
        outW,
        stride,
        padding,
        perChunk,
      ]);
      use(first, rows, windows);
    }
  };
}
