// From pixels to tokens and back: patches, [CLS] and positions, resampling, picking rows.
import { asMatrix } from "../../models/graph/program.ts";
import type { OpOf } from "../../models/graph/ops/mod.ts";
import { leadOf } from "../../models/graph/ops/tokens.ts";
import { size, type Tensor } from "../../models/graph/tensor.ts";
import type { Binding } from "../dispatch.ts";
import { kernel, type KernelFile } from "../kernels/sources.ts";
import type { Lowering } from "../lowering.ts";
import { widthOf } from "./elementwise.ts";

function each(l: Lowering, name: KernelFile, width: 1 | 4, bindings: readonly Binding[], u: readonly number[]): void {
  l.emit(kernel(name, { width }), bindings, { u }, Math.ceil(u[0] / 256));
}

function patchExtents(image: Tensor, patch: number): number[] {
  const [, C, H, W] = image.shape;
  return [C, H, W, patch, Math.floor(H / patch), Math.floor(W / patch)];
}

export function lowerPatchify(l: Lowering, op: OpOf<"patchify">): void {
  const { image } = op.in, { patches } = op.out;
  each(l, "patchify", 1, [l.of(image), l.of(patches)], [size(patches), ...patchExtents(image, op.attrs.patchSize)]);
}

export function lowerUnpatchify(l: Lowering, op: OpOf<"unpatchify">): void {
  const { patches } = op.in, { image } = op.out;
  each(l, "unpatchify", 1, [l.of(patches), l.of(image)], [size(image), ...patchExtents(image, op.attrs.patchSize)]);
}

export function lowerAssembleTokens(l: Lowering, op: OpOf<"assembleTokens">): void {
  const { patches, lead, pos } = op.in;
  const [, D] = asMatrix(patches), width = widthOf(D);
  const { count, perImage } = leadOf(op);
  const u = [size(op.out.x), count * D, size(pos), perImage ? count * D : 0].map((n) => n / width);
  each(l, "assemble_tokens", width, [l.of(patches), l.of(lead), l.of(pos), l.of(op.out.x)], u);
}

export function lowerAssembleTokensBackward(l: Lowering, op: OpOf<"assembleTokensBackward">): void {
  const { dpatches, dlead, dpos } = op.out;
  const { images, lead, leadPerImage, accumulateLead, accumulatePos } = op.attrs;
  const [, D] = asMatrix(op.in.dx);
  const width = widthOf(D);
  each(l, "assemble_tokens_backward", width, [l.of(op.in.dx), l.of(dpatches), l.of(dlead), l.of(dpos)], [
    size(op.in.dx) / images / width,
    lead * D / width,
    images,
    ...[dpatches, dlead, dpos].map((t) => Number(t !== undefined)),
    Number(leadPerImage),
    Number(accumulateLead),
    Number(accumulatePos),
  ]);
}

export function lowerResample(l: Lowering, op: OpOf<"resample">): void {
  const { x, wy, wx, bandsY, bandsX } = op.in;
  const { lead, accumulate } = op.attrs;
  const [outH, inH] = wy.shape, [outW, inW] = wx.shape;
  const [, D] = asMatrix(x);
  const width = widthOf(D);
  each(l, "resample", width, [l.of(x), l.of(wy), l.of(wx), l.of(bandsY), l.of(bandsX), l.of(op.out.y)], [
    (lead + outH * outW) * D / width,
    D / width,
    lead,
    inH,
    inW,
    outW,
    Number(accumulate),
  ]);
}

export function lowerGatherRows(l: Lowering, op: OpOf<"gatherRows">): void {
  const { start, stride, count, target } = op.attrs;
  const [, D] = asMatrix(op.in.x);
  const width = widthOf(D);
  each(l, "gather_rows", width, [l.of(op.in.x), l.of(op.out.y)], [
    count * D / width,
    D / width,
    start,
    stride,
    target,
  ]);
}

export function lowerScatterRows(l: Lowering, op: OpOf<"scatterRows">): void {
  const { start, stride, count, target, accumulate } = op.attrs;
  const [, D] = asMatrix(op.in.y);
  const width = widthOf(D);
  each(l, "scatter_rows", width, [l.of(op.in.y), l.of(op.out.x)], [
    size(op.out.x) / width,
    D / width,
    start,
    stride,
    count,
    target,
    Number(accumulate),
  ]);
}
