// Batch norm: statistics of columns by chunks of rows, joined in order.
import type { OpOf } from "../../models/graph/ops/mod.ts";
import type { Tensor } from "../../models/graph/tensor.ts";
import { type Binding, NOTHING } from "../dispatch.ts";
import { kernel } from "../kernels/sources.ts";
import type { Lowering } from "../lowering.ts";
import { rowRanges } from "../tiles.ts";
import { chunkRows, emitColumnSum, matrixOf } from "./elementwise.ts";

/** Statistics of ranges of rows, [chunks, 2, C]. */
interface Parts {
  readonly partial: Binding;
  readonly chunks: number;
  readonly rowsPerChunk: number;
}

function emitParts(l: Lowering, x: Tensor): Parts {
  const { rows, columns } = matrixOf(x), columnBlocks = Math.ceil(columns / 64);
  const { chunks, rowsPerChunk } = chunkRows(rows, columnBlocks);
  const partial = l.scratch(chunks * 2 * columns * 4);
  for (const { start, count, of } of rowRanges(l, rows, [x], rowsPerChunk)) {
    l.emit(
      kernel("batch_norm_partial"),
      [l.of(of(x)), partial],
      { u: [count, columns, rowsPerChunk, columnBlocks, start / rowsPerChunk] },
      columnBlocks * Math.ceil(count / rowsPerChunk),
    );
  }
  return { partial, chunks, rowsPerChunk };
}

export function lowerBatchNormMoments(l: Lowering, op: OpOf<"batchNormMoments">): void {
  const { rows, columns } = matrixOf(op.in.x);
  const { partial, chunks, rowsPerChunk } = emitParts(l, op.in.x);
  l.emit(
    kernel("batch_norm_moments", { with: ["joined_moments"] }),
    [partial, l.of(op.out.moments)],
    { u: [columns, rows, chunks, rowsPerChunk] },
    Math.ceil(columns / 256),
  );
}

export function lowerBatchNorm(l: Lowering, op: OpOf<"batchNorm">): void {
  const { rows, columns } = matrixOf(op.in.x);
  const { eps, momentum, training } = op.attrs;
  const { runningMean, runningVar, weight, bias, moments } = op.in;
  const ranks = moments?.shape[0] ?? 1;
  const { partial, chunks, rowsPerChunk }: Parts = moments
    ? { partial: l.of(moments), chunks: ranks, rowsPerChunk: rows }
    : training
    ? emitParts(l, op.in.x)
    : { partial: NOTHING, chunks: 0, rowsPerChunk: 0 };
  l.emit(
    kernel("batch_norm_stats", { with: ["joined_moments"] }),
    [partial, l.of(runningMean), l.of(runningVar), l.of(op.out.stats)],
    { u: [columns, rows * ranks, chunks, rowsPerChunk, Number(training)], f: [eps, momentum] },
    Math.ceil(columns / 256),
  );
  const { x } = op.in, { y, stats } = op.out;
  for (const { count, of } of rowRanges(l, rows, [x, y])) {
    l.emit(
      kernel("batch_norm"),
      [l.of(of(x)), l.of(stats), l.of(weight), l.of(bias), l.of(of(y))],
      { u: [count * columns, columns] },
      Math.ceil(count * columns / 256),
    );
  }
}

/** Σ dy·x̂ and Σ dy into `sums` [2, C], and to the gradients of the parameters. */
function emitSums(
  l: Lowering,
  { in: { dy, x, stats }, out: { dweight, dbias }, attrs: { accumulateParams } }: OpOf<
    "batchNormBackward" | "batchNormSums"
  >,
  sumsOf: () => Binding,
): Binding {
  const { rows, columns } = matrixOf(x), columnBlocks = Math.ceil(columns / 64);
  const { chunks, rowsPerChunk } = chunkRows(rows, columnBlocks);
  const partial = l.scratch(chunks * 2 * columns * 4);
  const sums = sumsOf();
  for (const { start, count, of } of rowRanges(l, rows, [dy, x], rowsPerChunk)) {
    l.emit(
      kernel("batch_norm_backward_partial"),
      [l.of(of(dy)), l.of(of(x)), l.of(stats), partial],
      { u: [count, columns, rowsPerChunk, columnBlocks, start / rowsPerChunk] },
      columnBlocks * Math.ceil(count / rowsPerChunk),
    );
  }
  emitColumnSum(l, partial, chunks, 2 * columns, sums, false);
  for (const [i, target] of [dweight, dbias].entries()) {
    if (!target) continue;
    const u = [columns, i * columns, Number(accumulateParams)];
    l.emit(kernel("add_part"), [sums, l.of(target)], { u }, Math.ceil(columns / 256));
  }
  return sums;
}

export function lowerBatchNormSums(l: Lowering, op: OpOf<"batchNormSums">): void {
  emitSums(l, op, () => l.of(op.out.sums));
}

export function lowerBatchNormBackward(l: Lowering, op: OpOf<"batchNormBackward">): void {
  const { rows, columns } = matrixOf(op.in.x);
  const { training, accumulateX, ranks = 1 } = op.attrs;
  const { in: { sums: given }, out: { dx } } = op;
  const sums = given ? l.of(given) : emitSums(l, op, () => l.scratch(2 * columns * 4));
  if (!dx) return;
  const { dy, x, stats, weight } = op.in;
  for (const { count, of } of rowRanges(l, rows, [dy, x, dx])) {
    l.emit(
      kernel("batch_norm_backward"),
      [l.of(of(dy)), l.of(of(x)), l.of(stats), l.of(weight), sums, l.of(of(dx))],
      { u: [count * columns, columns, Number(accumulateX)], f: [training ? 1 / (rows * ranks) : 0] },
      Math.ceil(count * columns / 256),
    );
  }
}
