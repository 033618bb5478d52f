// Operations that touch each element once, and the sums over rows.
import { asMatrix } from "../../models/graph/program.ts";
import type { OpOf } from "../../models/graph/ops/mod.ts";
import { size, type Tensor } from "../../models/graph/tensor.ts";
import { type Binding, NOTHING, type Params } from "../dispatch.ts";
import { kernel, type KernelFile } from "../kernels/sources.ts";
import type { Lowering } from "../lowering.ts";
import { THREADS } from "./copy.ts";

/** 4 when every extent is a multiple of four, so that threads may handle four floats at a time; else 1. */
export function widthOf(...extents: number[]): 1 | 4 {
  return extents.every((n) => n % 4 === 0) ? 4 : 1;
}

function each(
  l: Lowering,
  name: KernelFile,
  count: number,
  width: 1 | 4,
  bindings: readonly Binding[],
  { u = [], f }: Params,
  parts: readonly KernelFile[] = [],
): void {
  const threads = count / width;
  l.emit(kernel(name, { width, with: parts }), bindings, { u: [threads, ...u], f }, Math.ceil(threads / THREADS));
}

export function lowerAdd(l: Lowering, op: OpOf<"add">): void {
  const count = size(op.out.y);
  each(l, "add", count, widthOf(count), [l.of(op.in.a), l.of(op.in.b), l.of(op.out.y)], {});
}

export function lowerGelu(l: Lowering, op: OpOf<"gelu">): void {
  const count = size(op.out.y);
  each(l, "gelu", count, widthOf(count), [l.of(op.in.x), l.of(op.out.y)], {}, ["math"]);
}

export function lowerGeluBackward(l: Lowering, op: OpOf<"geluBackward">): void {
  const count = size(op.out.dx);
  const u = [Number(op.attrs.accumulate)];
  each(l, "gelu_backward", count, widthOf(count), [l.of(op.in.dy), l.of(op.in.x), l.of(op.out.dx)], { u }, ["math"]);
}

export function lowerScaleRows(l: Lowering, op: OpOf<"scaleRows">): void {
  const count = size(op.out.y), perGroup = count / size(op.in.scale);
  const width = widthOf(perGroup);
  const u = [perGroup / width, 0];
  each(l, "scale_rows", count, width, [l.of(op.in.x), l.of(op.in.scale), l.of(op.out.y)], { u });
}

export function lowerEma(l: Lowering, op: OpOf<"ema">): void {
  const count = size(op.out.target);
  const { source, momentum, frozen } = op.in;
  const bindings = [l.of(source), l.of(op.out.target), l.of(momentum), l.of(frozen)];
  each(l, "ema", count, widthOf(count), bindings, { u: [Number(frozen !== undefined)] });
}

export function lowerColumnSum(l: Lowering, op: OpOf<"columnSum">): void {
  const columns = size(op.out.y);
  const rows = size(op.in.x) / columns, { scale } = op.in;
  const scaled = scale && { scale: l.of(scale), perScale: rows / size(scale) };
  emitColumnSum(l, l.of(op.in.x), rows, columns, l.of(op.out.y), op.attrs.accumulate, scaled);
}

/** Rows a workgroup adds up at most; more are cut into chunks whose sums are summed in turn. */
const ROWS_PER_CHUNK = 256;

/** y (+)= Σ over the rows of x [rows, columns], every `perScale` of them times a factor if there is a scale. */
export function emitColumnSum(
  l: Lowering,
  x: Binding,
  rows: number,
  columns: number,
  y: Binding,
  accumulate: boolean,
  scaled?: { readonly scale: Binding; readonly perScale: number },
): void {
  const width = widthOf(columns);
  const columnBlocks = Math.ceil(columns / width / 64);
  let from = x, left = rows;
  while (true) {
    const { chunks, rowsPerChunk } = chunkRows(left, columnBlocks);
    const last = chunks === 1;
    const to = last ? y : l.scratch(chunks * columns * 4);
    const factor = from === x ? scaled : undefined;
    const u = [left, columns / width, rowsPerChunk, columnBlocks, Number(last && accumulate), factor?.perScale ?? 0];
    l.emit(kernel("column_sum", { width }), [from, to, factor?.scale ?? NOTHING], { u }, columnBlocks * chunks);
    if (last) return;
    from = to;
    left = chunks;
  }
}

/** How rows are shared out to workgroups of a column reduction: enough of them, none with too few rows. */
export function chunkRows(rows: number, columnBlocks: number): { chunks: number; rowsPerChunk: number } {
  if (rows <= ROWS_PER_CHUNK / 4) return { chunks: 1, rowsPerChunk: Math.max(rows, 1) };
  const wanted = Math.max(
    Math.ceil(rows / ROWS_PER_CHUNK),
    Math.min(Math.ceil(rows / 32), Math.ceil(512 / columnBlocks)),
  );
  const rowsPerChunk = Math.ceil(rows / wanted);
  return { chunks: Math.ceil(rows / rowsPerChunk), rowsPerChunk };
}

/** Elements a workgroup of `sum` adds up at least. */
const SUM_SHARE = 4096;

export function lowerSum(l: Lowering, op: OpOf<"sum">): void {
  const count = size(op.in.x);
  const sum = kernel("sum", { with: ["rows"], constants: { LANES: 256 } });
  const perGroup = Math.max(SUM_SHARE, Math.ceil(count / 1024));
  const groups = Math.max(1, Math.ceil(count / perGroup));
  const { scale, accumulate } = op.attrs;
  const y = l.of(op.out.y);
  if (groups === 1) {
    l.emit(sum, [l.of(op.in.x), y], { u: [count, perGroup, Number(accumulate)], f: [scale] }, 1);
    return;
  }
  const partial = l.scratch(groups * 4);
  l.emit(sum, [l.of(op.in.x), partial], { u: [count, perGroup, 0], f: [1] }, groups);
  l.emit(sum, [partial, y], { u: [groups, groups, Number(accumulate)], f: [scale] }, 1);
}

/** Rows and columns, with the vector width the columns allow. */
export function matrixOf(t: Tensor): { rows: number; columns: number; width: 1 | 4 } {
  const [rows, columns] = asMatrix(t);
  return { rows, columns, width: widthOf(columns) };
}
