// Operations on tensors that are larger than a device binds at once: the same operation on ranges of their leading axis, in turn.
import { OutOfMemoryError } from "../models/graph/backend.ts";
import type { Op, OpKind, OpOf } from "../models/graph/ops/mod.ts";
import { asMatrix } from "../models/graph/program.ts";
import { size, type Tensor, view, VIEW_ALIGNMENT } from "../models/graph/tensor.ts";

/** How an operation can be cut. */
interface Cut {
  /** What cannot be cut further: rows, images, elements. */
  readonly units: number;
  /** Slots whose tensors lie unit after unit; the others are bound whole by every part. */
  readonly slots: readonly string[];
  /** Bytes that a unit takes in one piece of scratch space. */
  readonly scratch?: number;
  /** Attributes that differ for the part of `count` units from `start` on. */
  readonly attrs?: (start: number, count: number) => object;
}

type Cutter<K extends OpKind> = (op: OpOf<K>) => Cut | undefined;

const rowsOf = (t: Tensor) => asMatrix(t)[0];
/** The first part overwrites or adds as asked, the others add. */
const adding = (asked: boolean) => (start: number) => asked || start > 0;

const CUTTERS: { readonly [K in OpKind]?: Cutter<K> } = {
  add: ({ out }) => ({ units: size(out.y), slots: ["a", "b", "y"] }),
  copy: ({ out }) => ({ units: size(out.y), slots: ["x", "y"] }),
  gelu: ({ out }) => ({ units: size(out.y), slots: ["x", "y"] }),
  geluBackward: ({ out }) => ({ units: size(out.dx), slots: ["dy", "x", "dx"] }),
  ema: ({ out }) => ({ units: size(out.target), slots: ["source", "target"] }),
  scaleRows: ({ in: { scale } }) => ({ units: size(scale), slots: ["x", "scale", "y"] }),
  checkFinite: ({ in: { x } }) => ({ units: size(x), slots: ["x"] }),
  sum: ({ in: { x }, attrs }) => ({
    units: size(x),
    slots: ["x"],
    attrs: (start) => ({ accumulate: adding(attrs.accumulate)(start) }),
  }),
  columnSum: ({ in: { x, scale }, out: { y }, attrs }) => ({
    units: scale ? size(scale) : size(x) / size(y),
    slots: ["x", "scale"],
    attrs: (start) => ({ accumulate: adding(attrs.accumulate)(start) }),
  }),
  layerNorm: ({ in: { x } }) => ({ units: rowsOf(x), slots: ["x", "y", "stats"] }),
  layerNormBackward: ({ in: { x }, attrs }) => ({
    units: rowsOf(x),
    slots: ["dy", "x", "stats", "dx"],
    attrs: (start) => ({ accumulateParams: adding(attrs.accumulateParams)(start) }),
  }),
  l2Normalize: ({ in: { x } }) => ({ units: rowsOf(x), slots: ["x", "y", "norm"] }),
  l2NormalizeBackward: ({ in: { y } }) => ({ units: rowsOf(y), slots: ["dy", "y", "norm", "dx"] }),
  weightNorm: ({ in: { v } }) => ({ units: rowsOf(v), slots: ["v", "gain", "weight", "norm"] }),
  weightNormBackward: ({ in: { v } }) => ({
    units: rowsOf(v),
    slots: ["dweight", "v", "gain", "norm", "dv", "dgain"],
  }),
  centeredSoftmax: ({ in: { logits } }) => ({ units: rowsOf(logits), slots: ["logits", "probs", "entropy"] }),
  topK: ({ in: { scores }, attrs: { k } }) => ({
    units: rowsOf(scores),
    scratch: 8 * k, // a key and a place of each winner
    slots: ["scores", "earlierValues", "earlierIndices", "values", "indices"],
  }),
  attention: ({ attrs: { images } }) => ({ units: images, slots: ["qkv", "y", "lse"], attrs: imagesOf }),
  attentionBackward: ({ attrs: { images } }) => ({
    units: images,
    slots: ["dy", "qkv", "y", "lse", "dqkv"],
    attrs: imagesOf,
  }),
  attentionProbs: ({ attrs: { images } }) => ({ units: images, slots: ["qkv", "probs"], attrs: imagesOf }),
  patchify: ({ in: { image } }) => ({ units: image.shape[0], slots: ["image", "patches"] }),
  unpatchify: ({ out: { image } }) => ({ units: image.shape[0], slots: ["image", "patches"] }),
  assembleTokens: ({ in: { patches, lead, pos }, attrs: { images } }) => {
    const leading = rowsOf(pos) - rowsOf(patches) / images;
    const perImage = lead !== undefined && images > 1 && rowsOf(lead) === images * leading;
    return { units: images, slots: ["patches", "x", ...perImage ? ["lead"] : []], attrs: imagesOf };
  },
  assembleTokensBackward: ({ attrs: { images, leadPerImage, accumulateLead, accumulatePos } }) => ({
    units: images,
    slots: ["dx", "dpatches", ...leadPerImage ? ["dlead"] : []],
    attrs: (start, count) => ({
      images: count,
      accumulateLead: leadPerImage ? accumulateLead : adding(accumulateLead)(start),
      accumulatePos: adding(accumulatePos)(start),
    }),
  }),
  // Rows picked at a stride, as [CLS] is from the tokens of each image; or a whole tensor put among others.
  gatherRows: ({ in: { x }, out: { y }, attrs }) => picked(attrs, x, y),
  scatterRows: ({ in: { y }, out: { x }, attrs }) => picked(attrs, x, y),
  augment: ({ attrs: { count } }) => ({
    units: count,
    slots: ["table", "crops"],
    attrs: (_start, part) => ({ count: part }),
  }),
  relu: ({ out: { y } }) => ({ units: size(y), slots: ["x", "residual", "y"] }),
  reluBackward: ({ out: { dx } }) => ({ units: size(dx), slots: ["dy", "y", "dx"] }),
  // Convolutions and pooling never look across images. Batch norm does: it cuts its own rows.
  conv2d: ({ attrs: { images } }) => ({ units: images, slots: ["x", "y"], attrs: imagesOf }),
  conv2dInputGradient: ({ attrs: { images } }) => ({ units: images, slots: ["dy", "dx"], attrs: imagesOf }),
  conv2dWeightGradient: ({ attrs }) => ({ units: attrs.images, slots: ["dy", "x"], attrs: addingImages(attrs) }),
  maxPool: ({ attrs: { images } }) => ({ units: images, slots: ["x", "y", "tap"], attrs: imagesOf }),
  maxPoolBackward: ({ attrs: { images } }) => ({ units: images, slots: ["dy", "tap", "dx"], attrs: imagesOf }),
  averagePool: ({ attrs: { images } }) => ({ units: images, slots: ["x", "y"], attrs: imagesOf }),
  averagePoolBackward: ({ attrs: { images } }) => ({ units: images, slots: ["dy", "dx"], attrs: imagesOf }),
  depthwiseConv: ({ attrs: { images } }) => ({ units: images, slots: ["x", "y"], attrs: imagesOf }),
  depthwiseConvWeightGradient: ({ attrs }) => ({ units: attrs.images, slots: ["dy", "x"], attrs: addingImages(attrs) }),
  layerScale: ({ in: { x, rowScale } }) => ({
    units: rowScale ? size(rowScale) : rowsOf(x),
    slots: ["x", "residual", "rowScale", "y"],
  }),
  layerScaleBackward: ({ in: { x, rowScale }, attrs }) => ({
    units: rowScale ? size(rowScale) : rowsOf(x),
    slots: ["dy", "x", "rowScale", "dx"],
    attrs: (start) => ({ accumulateGamma: adding(attrs.accumulateGamma)(start) }),
  }),
  crossCovariance: ({ attrs: { images } }) => ({
    units: images,
    slots: ["qkv", "y", "cosines", "norms"],
    attrs: imagesOf,
  }),
  crossCovarianceBackward: ({ attrs: { images, accumulateTemperature } }) => ({
    units: images,
    slots: ["dy", "qkv", "cosines", "norms", "dqkv"],
    attrs: (start, count) => ({ images: count, accumulateTemperature: adding(accumulateTemperature)(start) }),
  }),
};

/** Of a sum over images. */
function addingImages({ accumulate }: { readonly accumulate: boolean }) {
  return (start: number, count: number) => ({ images: count, accumulate: adding(accumulate)(start) });
}

const imagesOf = (_start: number, count: number) => ({ images: count });

function picked(
  { start, stride, count, target }: { start: number; stride: number; count: number; target: number },
  x: Tensor,
  y: Tensor,
): Cut | undefined {
  if (start >= stride || rowsOf(x) !== count * stride) return undefined;
  const both = target === 0 && rowsOf(y) === count;
  return {
    units: count,
    slots: both ? ["x", "y"] : ["x"],
    attrs: (first, part) => ({ count: part, target: both ? 0 : target + first }),
  };
}

/**
 * An operation as parts whose tensors a device binds, in the order they run; the operation itself if it need not or cannot be cut.
 *
 * @param limit bytes of the largest binding
 * @param bytesOf bytes of a tensor as it is stored
 */
export function inTiles(op: Op, limit: number, bytesOf: (t: Tensor) => number): Op[] {
  const slots = [...Object.entries(op.in), ...Object.entries(op.out)] as [string, Tensor | undefined][];
  const cut = (CUTTERS[op.kind] as Cutter<OpKind> | undefined)?.(op), scratch = cut?.scratch ?? 0;
  if (!cut || slots.every(([, t]) => t === undefined || bytesOf(t) <= limit) && scratch * cut.units <= limit) {
    return [op];
  }
  const sliced = new Set<Tensor>();
  for (const [slot, t] of slots) if (t && cut.slots.includes(slot)) sliced.add(t);
  const unitBytes = [...sliced].map((t) => bytesOf(t) / cut.units);
  const step = alignedUnits(unitBytes);
  const most = Math.floor(limit / Math.max(...unitBytes, scratch) / step) * step;
  if (most < 1) return [op];
  const parts: Op[] = [];
  for (let start = 0; start < cut.units; start += most) {
    const count = Math.min(most, cut.units - start);
    const views = new Map([...sliced].map((t) => [t, slice(t, cut.units, start, count)]));
    const replaced = (record: object) =>
      Object.fromEntries(
        Object.entries(record as Record<string, Tensor | undefined>).map((
          [slot, t],
        ) => [slot, (t && views.get(t)) ?? t]),
      );
    const attrs = { ...op.attrs, ...cut.attrs?.(start, count) };
    parts.push({ ...op, in: replaced(op.in), out: replaced(op.out), attrs } as Op);
  }
  return parts;
}

/**
 * Ranges of rows within which these tensors, row upon row, may be bound.
 *
 * @param step rows that must stay together
 * @throws {OutOfMemoryError} if not even that many can be bound
 */
export function* rowRanges(
  { limits: { bindingBytes }, bytesOf }: { limits: { bindingBytes: number }; bytesOf: (t: Tensor) => number },
  rows: number,
  tensors: readonly (Tensor | undefined)[],
  step = 1,
): Generator<{ start: number; count: number; of: <T extends Tensor | undefined>(t: T) => T }> {
  const rowBytes = tensors.filter((t) => t !== undefined).map((t) => bytesOf(t) / rows);
  let most = rows;
  if (Math.max(...rowBytes) * rows > bindingBytes) {
    const aligned = alignedUnits(rowBytes);
    while (step % aligned !== 0) step *= 2;
    most = Math.floor(bindingBytes / Math.max(...rowBytes) / step) * step;
    if (most < 1) {
      throw new OutOfMemoryError(
        `webgpu: ${step} rows of ${tensors[0]!.name} [${tensors[0]!.shape}] are more than this adapter binds, ` +
          `${bindingBytes} bytes: use a smaller batch or crop`,
      );
    }
  }
  for (let start = 0; start < rows; start += most) {
    const count = Math.min(most, rows - start);
    const of = <T extends Tensor | undefined>(t: T) => (t && count < rows ? slice(t, rows, start, count) : t) as T;
    yield { start, count, of };
  }
}

/** Units from one place where every tensor may be bound to the next. */
export function alignedUnits(unitBytes: readonly number[]): number {
  return unitBytes.reduce((step, bytes) => Math.max(step, VIEW_ALIGNMENT / greatestDivisor(VIEW_ALIGNMENT, bytes)), 1);
}

/** The largest power of two up to `limit`, itself one, that divides n. */
function greatestDivisor(limit: number, n: number): number {
  let divisor = limit;
  while (n % divisor !== 0) divisor /= 2;
  return divisor;
}

/** Units start … start + count of a tensor. */
export function slice(t: Tensor, units: number, start: number, count: number): Tensor {
  const each = size(t) / units, [lead = 1, ...rest] = t.shape;
  const shape = lead % units === 0 ? [lead / units * count, ...rest] : [count * each];
  return view(t, t.name, shape, start * each);
}
