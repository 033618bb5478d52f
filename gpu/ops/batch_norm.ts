// Batch norm: statistics of columns by chunks of rows, joined in order.
import type { OpOf } from "../../models/graph/ops/mod.ts";
import { NOTHING } from "../dispatch.ts";
import { kernel } from "../kernels/sources.ts";
import type { Lowering } from "../lowering.ts";
import { chunkRows, emitColumnSum, matrixOf } from "./elementwise.ts";

export function lowerBatchNorm(l: Lowering, op: OpOf<"batchNorm">): void {
  const { rows, columns } = matrixOf(op.in.x);
  const { eps, momentum, training } = op.attrs;
  const columnBlocks = Math.ceil(columns / 64);
  const { chunks, rowsPerChunk } = chunkRows(rows, columnBlocks);
  let partial = NOTHING;
  if (training) {
    partial = l.scratch(chunks * 2 * columns * 4);
    l.emit(
      kernel("batch_norm_partial"),
      [l.of(op.in.x), partial],
      { u: [rows, columns, rowsPerChunk, columnBlocks] },
      columnBlocks * chunks,
    );
  }
  const { runningMean, runningVar, weight, bias } = op.in;
  l.emit(
    kernel("batch_norm_stats"),
    [partial, l.of(runningMean), l.of(runningVar), l.of(op.out.stats)],
    { u: [columns, rows, chunks, rowsPerChunk, Number(training)], f: [eps, momentum] },
    Math.ceil(columns / 256),
  );
  l.emit(
    kernel("batch_norm"),
    [l.of(op.in.x), l.of(op.out.stats), l.of(weight), l.of(bias), l.of(op.out.y)],
    { u: [rows * columns, columns] },
    Math.ceil(rows * columns / 256),
  );
}

export function lowerBatchNormBackward(l: Lowering, op: OpOf<"batchNormBackward">): void {
  const { rows, columns } = matrixOf(op.in.x);
  const { training, accumulateX, accumulateParams } = op.attrs;
  const { dx, dweight, dbias } = op.out;
  const columnBlocks = Math.ceil(columns / 64);
  const { chunks, rowsPerChunk } = chunkRows(rows, columnBlocks);
  const partial = l.scratch(chunks * 2 * columns * 4);
  const sums = l.scratch(2 * columns * 4);
  l.emit(
    kernel("batch_norm_backward_partial"),
    [l.of(op.in.dy), l.of(op.in.x), l.of(op.in.stats), partial],
    { u: [rows, columns, rowsPerChunk, columnBlocks] },
    columnBlocks * chunks,
  );
  emitColumnSum(l, partial, chunks, 2 * columns, sums, false);
  for (const [i, target] of [dweight, dbias].entries()) {
    if (!target) continue;
    const u = [columns, i * columns, Number(accumulateParams)];
    l.emit(kernel("add_part"), [sums, l.of(target)], { u }, Math.ceil(columns / 256));
  }
  if (!dx) return;
  l.emit(
    kernel("batch_norm_backward"),
    [l.of(op.in.dy), l.of(op.in.x), l.of(op.in.stats), l.of(op.in.weight), sums, l.of(dx)],
    { u: [rows * columns, columns, Number(accumulateX)], f: [training ? 1 / rows : 0] },
    Math.ceil(rows * columns / 256),
  );
}
