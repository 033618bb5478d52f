// Matrix products on operands that are larger than a device binds at once: tile by tile, over ranges of rows, columns and the inner extent.
import { OutOfMemoryError } from "../../models/graph/backend.ts";
import { size, type Tensor } from "../../models/graph/tensor.ts";
import { kernel } from "../kernels/sources.ts";
import type { Binding } from "../dispatch.ts";
import type { MatmulShape } from "../kernels/matmul_tiles.ts";
import type { Lowering } from "../lowering.ts";
import { alignedUnits, slice } from "../tiles.ts";
import { widthOf } from "./elementwise.ts";

/** Tensors of a product: a, b and the result; those added row by row or multiplied; the bias. */
export interface ProductTensors {
  readonly a: Tensor;
  readonly b: Tensor;
  readonly c: Tensor;
  readonly residual?: Tensor;
  readonly pre?: Tensor;
  readonly bias?: Tensor;
}

/** A range of one extent. */
export interface Range {
  readonly start: number;
  readonly count: number;
}

/** One product of a tiled one. */
export interface ProductTile {
  readonly shape: MatmulShape;
  readonly a: Binding;
  readonly b: Binding;
  readonly c: Binding;
  readonly residual?: Binding;
  readonly pre?: Binding;
  readonly bias?: Binding;
  /** The tile of c has parts of the sum already. */
  readonly continues: boolean;
  /** Rows of c and of what goes with it. */
  readonly rows: Range;
  readonly columns: Range;
  /** Elements of the sums. */
  readonly inner: Range;
}

/** Whether some tensor of a product must be cut. */
export function needsTiles(l: Lowering, { a, b, c, residual, pre }: ProductTensors): boolean {
  return [a, b, c, residual, pre].some((t) => t !== undefined && computedBytes(t) > l.limits.bindingBytes);
}

/** Bytes as f32: what is kept as f16 may pass through scratch space on its way. */
function computedBytes(t: Tensor): number {
  return 4 * size(t);
}

/**
 * Emits a product tile by tile through `emit`. Sums over a cut inner extent go on in c.
 *
 * @param rowStep rows of c that must stay together, those of a row scale
 * @param cutsInner whether the inner extent may be cut: not below a GELU
 * @param accumulate whether the product is added to what c holds
 * @throws {RangeError} where no cut makes every operand fit
 */
export function emitTiles(
  l: Lowering,
  { m, n, k, transA, transB }: MatmulShape,
  tensors: ProductTensors,
  { rowStep, cutsInner, accumulate }: { rowStep: number; cutsInner: boolean; accumulate: boolean },
  emit: (tile: ProductTile) => void,
): void {
  const { a, b, c, residual, pre, bias } = tensors;
  const limit = l.limits.bindingBytes;
  const part = { m, n, k };
  /** Cuts an extent along which some tensors lie row by row. */
  const cut = (extent: "m" | "n" | "k", ...lying: (Tensor | undefined)[]) => {
    const whole = { m, n, k }[extent];
    const cutting = lying.filter((t) => t !== undefined);
    const most = Math.max(...cutting.map((t) => computedBytes(t) / whole));
    if (cutting.length === 0 || most * part[extent] <= limit) return;
    const aligned = alignedUnits(cutting.map((t) => l.bytesOf(t) / whole)),
      step = extent === "m" ? leastMultiple(aligned, rowStep) : aligned;
    part[extent] = Math.floor(limit / most / step) * step;
  };
  cut("m", c, residual, pre, transA ? undefined : a);
  cut("n", transB ? b : undefined);
  cut("k", transA ? a : undefined, transB ? undefined : b);
  const columnsAreCut = part.n < n;
  if (columnsAreCut) part.n &= ~63; // a bias is bound from a multiple of 256 bytes on
  if (
    part.k < k && (!cutsInner || columnsAreCut) || columnsAreCut && (residual || pre) ||
    Math.min(part.m, part.n, part.k) < 1
  ) {
    throw new OutOfMemoryError(
      `webgpu: a product [${a.shape}]×[${b.shape}] cannot be cut: this adapter binds at most ${limit} bytes: ` +
        "use a smaller batch, crop or output dimension",
    );
  }
  for (const rows of ranges(m, part.m)) {
    for (const columns of ranges(n, part.n)) {
      for (const inner of ranges(k, part.k)) {
        l.within(() => {
          const lying = l.of(rowsOf(c, m, rows));
          const target = columnsAreCut ? l.scratch(4 * rows.count * columns.count) : lying;
          if (columnsAreCut && accumulate) {
            copyColumns(l, lying, n, columns.start, target, columns.count, 0, rows.count, columns.count);
          }
          emit({
            shape: { m: rows.count, n: columns.count, k: inner.count, transA, transB },
            a: transA ? block(l, a, k, inner, m, rows) : block(l, a, m, rows, k, inner),
            b: transB ? block(l, b, n, columns, k, inner) : block(l, b, k, inner, n, columns),
            c: target,
            residual: residual && l.of(rowsOf(residual, m, rows)),
            pre: pre && l.of(rowsOf(pre, m, rows)),
            bias: bias && l.of(slice(bias, n, columns.start, columns.count)),
            continues: inner.start > 0,
            rows,
            columns,
            inner,
          });
          if (columnsAreCut) {
            copyColumns(l, target, columns.count, 0, lying, n, columns.start, rows.count, columns.count);
          }
        });
      }
    }
  }
}

function leastMultiple(a: number, b: number): number {
  let multiple = a;
  while (multiple % b !== 0) multiple += a;
  return multiple;
}

function* ranges(extent: number, count: number): Generator<Range> {
  for (let start = 0; start < extent; start += count) yield { start, count: Math.min(count, extent - start) };
}

function rowsOf(t: Tensor, rows: number, { start, count }: Range): Tensor {
  return start === 0 && count === rows ? t : slice(t, rows, start, count);
}

/** Rows of a matrix where they lie; some of their columns are brought together first. */
function block(l: Lowering, t: Tensor, rows: number, range: Range, columns: number, within: Range): Binding {
  const lying = l.of(rowsOf(t, rows, range));
  if (within.count === columns) return lying;
  const together = l.scratch(4 * range.count * within.count);
  copyColumns(l, lying, columns, within.start, together, within.count, 0, range.count, within.count);
  return together;
}

function copyColumns(
  l: Lowering,
  from: Binding,
  fromPitch: number,
  fromFirst: number,
  to: Binding,
  toPitch: number,
  toFirst: number,
  rows: number,
  columns: number,
): void {
  const width = widthOf(fromPitch, fromFirst, toPitch, toFirst, columns);
  const u = [rows, columns, fromPitch, fromFirst, toPitch, toFirst].map((x, i) => i === 0 ? x : x / width);
  l.emit(kernel("copy_columns", { width }), [from, to], { u }, Math.ceil(rows * columns / width / 256));
}
