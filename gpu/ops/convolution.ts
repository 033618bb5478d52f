// Convolutions: windows written out as rows of a matrix, a part of them at a time, times the filters.
import { type Conv2dExtents, conv2dExtents } from "../../models/graph/ops/convolution.ts";
import type { OpOf } from "../../models/graph/ops/mod.ts";
import type { Tensor } from "../../models/graph/tensor.ts";
import type { Binding } from "../dispatch.ts";
import { kernel } from "../kernels/sources.ts";
import type { Lowering } from "../lowering.ts";
import { widthOf } from "./elementwise.ts";
import { emitPlainProduct } from "./matmul.ts";

/** Bytes of windows written out at a time; a software adapter's processor keeps fewer in its cache. */
const WINDOW_BYTES = 128 << 20, SOFTWARE_WINDOW_BYTES = 8 << 20;

/** Rows from which a binding may start, whatever their width: 256 bytes are 64 floats. */
const ALIGNED_ROWS = 64;

export function lowerConv2d(l: Lowering, op: OpOf<"conv2d">): void {
  const e = conv2dExtents(op.attrs, op.in.weight), { O } = e, k = depthOf(e);
  const filters = filtersByTap(l, e, op.in.weight), bias = op.in.bias && l.of(op.in.bias);
  eachPart(l, e, l.of(op.in.x), (first, rows, windows) => {
    const y = part(l.of(op.out.y), first * O, rows * O);
    emitPlainProduct(l, { m: rows, n: O, k, transA: false, transB: true }, [windows, filters, y], { bias });
  });
}

export function lowerConv2dWeightGradient(l: Lowering, op: OpOf<"conv2dWeightGradient">): void {
  const e = conv2dExtents(op.attrs, op.out.dweight), { O, C } = e, k = depthOf(e), taps = e.kh * e.kw;
  const { accumulate } = op.attrs, direct = taps === 1;
  const sum = direct ? l.of(op.out.dweight) : l.scratch(O * k * 4);
  eachPart(l, e, l.of(op.in.x), (first, rows, windows) => {
    const dy = part(l.of(op.in.dy), first * O, rows * O);
    emitPlainProduct(l, { m: O, n: k, k: rows, transA: true, transB: false }, [dy, windows, sum], {
      accumulate: first > 0 || direct && accumulate,
    });
  });
  if (direct) return;
  const u = [O * k, C, taps, Number(accumulate)];
  l.emit(kernel("taps_behind"), [sum, l.of(op.out.dweight)], { u }, Math.ceil(O * k / 256));
}

export function lowerConv2dInputGradient(l: Lowering, op: OpOf<"conv2dInputGradient">): void {
  const e = conv2dExtents(op.attrs, op.in.weight), { O, C, H, W, outH, outW } = e, k = depthOf(e);
  const filters = filtersByTap(l, e, op.in.weight), width = widthOf(C), dx = l.of(op.out.dx);
  // A pixel belongs to windows above and below it, so parts are whole images; as many as a binding can start at.
  const whole = ALIGNED_ROWS / greatestDivisor(ALIGNED_ROWS, outH * outW * O);
  const fitting = Math.floor(windowBytes(l) / (outH * outW * k * 4));
  const most = Math.min(e.images, Math.max(1, Math.floor(fitting / whole)) * whole);
  const columns = l.scratch(most * outH * outW * k * 4);
  for (let image = 0; image < e.images; image += most) {
    const images = Math.min(most, e.images - image), rows = images * outH * outW;
    const dy = part(l.of(op.in.dy), image * outH * outW * O, rows * O);
    emitPlainProduct(l, { m: rows, n: k, k: O, transA: false, transB: false }, [dy, filters, columns]);
    const count = images * H * W * C / width;
    const u = [count, image * H * W, C / width, H, W, e.kh, e.kw, outH, outW, e.stride, e.padding];
    l.emit(
      kernel("col2im", { width }),
      [columns, dx],
      { u: [...u, Number(op.attrs.accumulate)] },
      Math.ceil(count / 256),
    );
  }
}

function windowBytes(l: Lowering): number {
  return Math.min(l.limits.fallback ? SOFTWARE_WINDOW_BYTES : WINDOW_BYTES, l.limits.bindingBytes);
}

/** Elements of a window. */
function depthOf({ C, kh, kw }: Conv2dExtents): number {
  return C * kh * kw;
}

/** The filters as [O, taps, C], the order in which windows hold their elements. */
function filtersByTap(l: Lowering, e: Conv2dExtents, weight: Tensor): Binding {
  const taps = e.kh * e.kw, count = e.O * depthOf(e);
  if (taps === 1) return l.of(weight);
  const filters = l.scratch(count * 4);
  l.emit(kernel("taps_before"), [l.of(weight), filters], { u: [count, e.C, taps] }, Math.ceil(count / 256));
  return filters;
}

/** Writes windows out, some rows at a time, and has each part used before the next is written. */
function eachPart(
  l: Lowering,
  e: Conv2dExtents,
  x: Binding,
  use: (first: number, rows: number, windows: Binding) => void,
): void {
  const { C, H, W, kh, kw, outH, outW, stride, padding } = e;
  const all = e.images * outH * outW, depth = depthOf(e), width = widthOf(C);
  const fitting = Math.floor(windowBytes(l) / (depth * 4) / ALIGNED_ROWS) * ALIGNED_ROWS;
  const most = Math.min(all, Math.max(ALIGNED_ROWS, fitting));
  const windows = l.scratch(most * depth * 4);
  for (let first = 0; first < all; first += most) {
    const rows = Math.min(most, all - first), count = rows * depth / width;
    const u = [count, first, C / width, H, W, kh * kw, kw, outH, outW, stride, padding];
    l.emit(kernel("im2col", { width }), [x, windows], { u }, Math.ceil(count / 256));
    use(first, rows, windows);
  }
}

/** Elements `start … start + count` of a tensor's binding. */
function part(of: Binding, start: number, count: number): Binding {
  if (of.kind !== "tensor") throw new TypeError(`webgpu: a part of a ${of.kind} binding`);
  return { ...of, offset: of.offset + 4 * start, bytes: 4 * count };
}

function greatestDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestDivisor(b, a % b);
}
