// Rectifiers and pooling.
import { windowExtents } from "../../models/graph/ops/pooling.ts";
import type { OpOf } from "../../models/graph/ops/mod.ts";
import { asMatrix } from "../../models/graph/program.ts";
import { size, type Tensor } from "../../models/graph/tensor.ts";
import { kernel } from "../kernels/sources.ts";
import type { Lowering } from "../lowering.ts";
import { widthOf } from "./elementwise.ts";

export function lowerRelu(l: Lowering, op: OpOf<"relu">): void {
  const { x, residual } = op.in, { y } = op.out, width = widthOf(size(y)), count = size(y) / width;
  const bindings = [l.of(x), l.of(residual), l.of(y)];
  l.emit(kernel("relu", { width }), bindings, { u: [count, Number(residual !== undefined)] }, Math.ceil(count / 256));
}

export function lowerReluBackward(l: Lowering, op: OpOf<"reluBackward">): void {
  const { dy, y } = op.in, { dx } = op.out, width = widthOf(size(dx)), count = size(dx) / width;
  const u = [count, Number(op.attrs.accumulate)];
  l.emit(kernel("relu_backward", { width }), [l.of(dy), l.of(y), l.of(dx)], { u }, Math.ceil(count / 256));
}

export function lowerMaxPool(l: Lowering, op: OpOf<"maxPool">): void {
  const { tap, y } = op.out;
  const u = [...windowParams(op.attrs, y), Number(tap !== undefined)];
  l.emit(kernel("max_pool"), [l.of(op.in.x), l.of(y), l.of(tap)], { u }, Math.ceil(size(y) / 256));
}

export function lowerMaxPoolBackward(l: Lowering, op: OpOf<"maxPoolBackward">): void {
  const { dx } = op.out, { dy, tap } = op.in;
  const u = [...windowParams(op.attrs, dx), Number(op.attrs.accumulate)];
  l.emit(kernel("max_pool_backward"), [l.of(dy), l.of(tap), l.of(dx)], { u }, Math.ceil(size(dx) / 256));
}

function windowParams(attrs: OpOf<"maxPool">["attrs"], written: Tensor): number[] {
  const { H, W, kh, outH, outW, stride, padding } = windowExtents(attrs);
  return [size(written), asMatrix(written)[1], H, W, kh, outH, outW, stride, padding];
}

export function lowerAveragePool(l: Lowering, op: OpOf<"averagePool">): void {
  const [rows, C] = asMatrix(op.in.x), perImage = rows / op.attrs.images, width = widthOf(C);
  const count = size(op.out.y) / width;
  l.emit(
    kernel("average_pool", { width }),
    [l.of(op.in.x), l.of(op.out.y)],
    { u: [count, C / width, perImage], f: [1 / perImage] },
    Math.ceil(count / 256),
  );
}

export function lowerAveragePoolBackward(l: Lowering, op: OpOf<"averagePoolBackward">): void {
  const [rows, C] = asMatrix(op.out.dx), perImage = rows / op.attrs.images, width = widthOf(C);
  const count = size(op.out.dx) / width;
  l.emit(
    kernel("average_pool_backward", { width }),
    [l.of(op.in.dy), l.of(op.out.dx)],
    { u: [count, C / width, perImage, Number(op.attrs.accumulate)], f: [1 / perImage] },
    Math.ceil(count / 256),
  );
}
