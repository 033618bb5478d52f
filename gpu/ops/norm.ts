// Layer norm, L2 norm, weight norm: reductions along a row.
import type { OpOf } from "../../models/graph/ops/mod.ts";
import { kernel, type KernelFile } from "../kernels/sources.ts";
import type { Lowering } from "../lowering.ts";
import { emitColumnSum, matrixOf } from "./elementwise.ts";
import type { Kernel } from "../shader.ts";

/** Threads that share a row: 32 while rows are short, so that a workgroup takes eight; on a software adapter, where meeting is dear, one. */
function lanesFor({ limits: { fallback } }: Lowering, columns: number, width: number): number {
  if (fallback) return 1;
  return columns / width > 512 ? 256 : 32;
}

function rowKernel(
  name: KernelFile,
  width: 1 | 4,
  lanes: number,
  constants = {},
  parts: readonly KernelFile[] = [],
): Kernel {
  return kernel(name, { width, with: ["rows", ...parts], constants: { LANES: lanes, ...constants } });
}

export function lowerLayerNorm(l: Lowering, op: OpOf<"layerNorm">): void {
  const { rows, columns, width } = matrixOf(op.in.x);
  const lanes = lanesFor(l, columns, width);
  l.emit(
    rowKernel("layer_norm", width, lanes, {}, ["normalized"]),
    [l.of(op.in.x), l.of(op.in.weight), l.of(op.in.bias), l.of(op.out.y), l.of(op.out.stats)],
    {
      u: [rows, columns / width, Number(op.out.y !== undefined), Number(op.out.stats !== undefined)],
      f: [op.attrs.eps, 1 / columns],
    },
    Math.ceil(rows * lanes / 256),
  );
}

/** Rows of a strip of the backward kernel: few enough to stay in cache between its two passes. */
const STRIP = 32;

export function lowerLayerNormBackward(l: Lowering, op: OpOf<"layerNormBackward">): void {
  const { rows, columns, width } = matrixOf(op.in.x);
  const { dx, dweight, dbias } = op.out;
  const { accumulateX, accumulateParams } = op.attrs;
  const hasParams = dweight !== undefined || dbias !== undefined;
  const strips = Math.ceil(rows / STRIP);
  const walkers = Math.max(1, Math.min(STRIP, Math.floor(256 / (columns / width)))); // rows walked side by side
  const partial = l.scratch(hasParams ? strips * 2 * columns * 4 : 16);
  l.emit(
    rowKernel("layer_norm_backward", width, l.limits.fallback ? 8 : lanesFor(l, columns, width), { STRIP }),
    [l.of(op.in.dy), l.of(op.in.x), l.of(op.in.stats), l.of(op.in.weight), l.of(dx), partial],
    {
      u: [rows, columns / width, Number(dx !== undefined), Number(hasParams), Number(accumulateX), walkers],
      f: [1 / columns],
    },
    strips,
  );
  if (!hasParams) return;
  // The partial sums of weight and bias lie side by side, as the halves of rows twice as long.
  const sums = l.scratch(2 * columns * 4);
  emitColumnSum(l, partial, strips, 2 * columns, sums, false);
  const half = { width: 1 as const };
  for (const [i, target] of [dweight, dbias].entries()) {
    if (!target) continue;
    l.emit(
      kernel("add_part", half),
      [sums, l.of(target)],
      { u: [columns, i * columns, Number(accumulateParams)] },
      Math.ceil(columns / 256),
    );
  }
}

export function lowerL2Normalize(l: Lowering, op: OpOf<"l2Normalize">): void {
  const { rows, columns, width } = matrixOf(op.in.x);
  const lanes = lanesFor(l, columns, width);
  l.emit(
    rowKernel("l2_normalize", width, lanes),
    [l.of(op.in.x), l.of(undefined), l.of(op.out.y), l.of(op.out.norm)],
    { u: [rows, columns / width, Number(op.out.norm !== undefined), 0], f: [op.attrs.eps] },
    Math.ceil(rows * lanes / 256),
  );
}

export function lowerL2NormalizeBackward(l: Lowering, op: OpOf<"l2NormalizeBackward">): void {
  const { rows, columns, width } = matrixOf(op.in.y);
  const lanes = lanesFor(l, columns, width);
  l.emit(
    rowKernel("l2_normalize_backward", width, lanes),
    [l.of(op.in.dy), l.of(op.in.y), l.of(op.in.norm), l.of(op.out.dx)],
    { u: [rows, columns / width, Number(op.attrs.accumulate)], f: [op.attrs.eps] },
    Math.ceil(rows * lanes / 256),
  );
}

export function lowerWeightNorm(l: Lowering, op: OpOf<"weightNorm">): void {
  const { rows, columns, width } = matrixOf(op.in.v);
  const lanes = lanesFor(l, columns, width);
  l.emit(
    rowKernel("l2_normalize", width, lanes),
    [l.of(op.in.v), l.of(op.in.gain), l.of(op.out.weight), l.of(op.out.norm)],
    { u: [rows, columns / width, Number(op.out.norm !== undefined), 1], f: [0] },
    Math.ceil(rows * lanes / 256),
  );
}

export function lowerWeightNormBackward(l: Lowering, op: OpOf<"weightNormBackward">): void {
  const { rows, columns, width } = matrixOf(op.in.v);
  const lanes = lanesFor(l, columns, width);
  const { dv, dgain } = op.out;
  l.emit(
    rowKernel("weight_norm_backward", width, lanes),
    [l.of(op.in.dweight), l.of(op.in.v), l.of(op.in.gain), l.of(op.in.norm), l.of(dv), l.of(dgain)],
    {
      u: [rows, columns / width, Number(dv !== undefined), Number(dgain !== undefined), Number(op.attrs.accumulate)],
    },
    Math.ceil(rows * lanes / 256),
  );
}
