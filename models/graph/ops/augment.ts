// Augmented crops from 8-bit pixels: box, antialiased resize, flip, colour, blur, solarize, normalise, patches.
import { type Program, require } from "../program.ts";
import { size, type Tensor, tensor } from "../tensor.ts";
import { type CropCapacity, RECORD, tapCapacity } from "../../image/crop.ts";
import { adjust, ADJUSTMENT, type AdjustmentKind } from "../../image/color.ts";
import { boxBlur } from "../../image/blur.ts";
import { emptyRaster } from "../../image/raster.ts";
import { resampleWithTaps } from "../../image/resample.ts";
import type { Operation, OpRule } from "./rule.ts";

/**
 * pixels u8 [bytes], table i32 [count, 32] and taps i32 as a `CropPlanner` writes them → for each crop an 8-bit
 * image [height, width, 3], equal to Pillow's bit for bit, and from its bytes v of channel c
 * - layout "patches": levels[c, v] as patches [count·gridH·gridW, 3·p·p], a patch ordered channel, row, column;
 * - layout "levels": v itself as f32 [count, height, width, 3].
 */
export type AugmentOp = Operation<
  "augment",
  { pixels: Tensor; table: Tensor; taps: Tensor; levels: Tensor },
  { crops: Tensor },
  {
    count: number;
    height: number;
    width: number;
    maxTaps: number;
    layout: "patches" | "levels";
    patchSize: number;
  }
>;

/** Bytes at the end of a pixel buffer that no image may use: kernels read whole vectors. */
export const PIXEL_PADDING = 16;

/** An input for a batch of images of `bytes` bytes together. Its size is what `CropPlanner.plan` asks for, padding excluded. */
export function pixelBuffer(bytes: number): Tensor {
  return tensor("pixels", [Math.ceil(bytes / 4) * 4 + PIXEL_PADDING], "input", "u8");
}

/** Bytes of a {@link pixelBuffer} that images may use. */
export function pixelRoom(pixels: Tensor): number {
  return size(pixels) - PIXEL_PADDING;
}

/** What the augmentation of crops of one size reads and writes. */
export interface AugmentTensors {
  /** i32 [count, 32], the planner's table. */
  table: Tensor;
  /** i32, the planner's taps; only the words in use need be written. */
  taps: Tensor;
  /** f32: patches, or levels. */
  crops: Tensor;
  /** f32 [3, 256], a constant: the normalised value of each level. */
  levels: Tensor;
}

/** Colour statistics: a level v of channel c becomes (v/255 − mean[c]) / deviation[c]. */
export interface Normalization {
  /** Of red, green and blue, in 0 … 1. */
  mean: readonly number[];
  /** What divides them. */
  deviation: readonly number[];
}

/** ImageNet's, which DINO and its evaluations use. */
export const IMAGENET_NORMALIZATION: Normalization = {
  mean: [0.485, 0.456, 0.406],
  deviation: [0.229, 0.224, 0.225],
};

/** Every normalised value there is, f32 [3, 256], rounded as torchvision does: divide, subtract, divide. */
export function normalizedLevels({ mean, deviation }: Normalization): Float32Array {
  const f = Math.fround, levels = new Float32Array(3 * 256);
  for (let c = 0; c < 3; c++) {
    for (let v = 0; v < 256; v++) levels[c * 256 + v] = f(f(f(v / 255) - f(mean[c])) / f(deviation[c]));
  }
  return levels;
}

/**
 * Emits the augmentation of `capacity.count` crops into normalised patches [count·gridH·gridW, 3·p·p].
 *
 * @param role of the patches; an output can be read by the host
 */
export function augment(
  p: Program,
  pixels: Tensor,
  capacity: CropCapacity,
  patchSize: number,
  normalization: Normalization = IMAGENET_NORMALIZATION,
  role: "activation" | "output" = "activation",
): AugmentTensors {
  const { count, height, width } = capacity;
  const gridHeight = Math.floor(height / patchSize), gridWidth = Math.floor(width / patchSize);
  require(
    patchSize >= 1 && gridHeight >= 1 && gridWidth >= 1,
    "augment",
    () => `patch size ${patchSize} for crops of ${height}×${width}`,
  );
  const crops = tensor(
    `crops${height}`,
    [count * gridHeight * gridWidth, 3 * patchSize * patchSize],
    role,
  );
  return emitAugment(p, pixels, capacity, "patches", patchSize, crops, normalization);
}

/** Emits the augmentation into plain 8-bit levels, an output f32 [count, height, width, 3] for the host to read. */
export function augmentToLevels(p: Program, pixels: Tensor, capacity: CropCapacity): AugmentTensors {
  const { count, height, width } = capacity;
  const crops = tensor(`levels${height}`, [count, height, width, 3], "output");
  return emitAugment(p, pixels, capacity, "levels", 0, crops, IMAGENET_NORMALIZATION);
}

function emitAugment(
  p: Program,
  pixels: Tensor,
  capacity: CropCapacity,
  layout: "patches" | "levels",
  patchSize: number,
  crops: Tensor,
  normalization: Normalization,
): AugmentTensors {
  const { count, height, width, maxTaps } = capacity;
  require(
    [count, height, width, maxTaps].every((n) => Number.isSafeInteger(n) && n >= 1),
    "augment",
    () => `${count} crops of ${height}×${width} with ${maxTaps} taps`,
  );
  require(height * width <= 2 ** 24, "augment", () => `a crop of ${height}×${width} exceeds 2^24 pixels`); // luma sums stay below 2^32
  require(pixels.dtype === "u8", "augment", () => `pixels are ${pixels.dtype}, not u8`);
  const table = tensor(`table${height}`, [count, RECORD.words], "input", "i32");
  const taps = tensor(`taps${height}`, [tapCapacity(capacity)], "input", "i32");
  const levels = tensor("levels", [3, 256], "constant", "f32", normalizedLevels(normalization));
  p.emit<AugmentOp>({
    kind: "augment",
    in: { pixels, table, taps, levels },
    out: { crops },
    attrs: { count, height, width, maxTaps, layout, patchSize },
  });
  return { table, taps, crops, levels };
}

const KIND_NAMES = Object.entries(ADJUSTMENT).reduce<AdjustmentKind[]>((names, [name, number]) => {
  names[number] = name as AdjustmentKind;
  return names;
}, []);

/** The reference of {@link AugmentOp}: Pillow's arithmetic, step by step. It has no gradient. */
export const augmentRule: OpRule<AugmentOp> = {
  reference(op, at) {
    const pixels = Uint8Array.from(at(op.in.pixels)), taps = Int32Array.from(at(op.in.taps));
    const table = Int32Array.from(at(op.in.table)), floats = new Float32Array(table.buffer);
    const levels = at(op.in.levels), crops = at(op.out.crops);
    const { count, height, width, layout, patchSize } = op.attrs;
    const perCrop = crops.length / count;
    for (let crop = 0; crop < count; crop++) {
      const record = table.subarray(crop * RECORD.words, (crop + 1) * RECORD.words);
      const image = emptyRaster(height, width);
      resampleWithTaps(
        pixels,
        record[RECORD.pixelOffset],
        record[RECORD.rowBytes],
        record[RECORD.boxRows],
        taps,
        { offset: record[RECORD.horizontalTaps], stride: record[RECORD.horizontalStride] },
        { offset: record[RECORD.verticalTaps], stride: record[RECORD.verticalStride] },
        image,
      );
      for (let k = 0; k < record[RECORD.adjustments]; k++) {
        const kind = KIND_NAMES[record[RECORD.kinds + k]];
        const bits = RECORD.factors + k;
        adjust(image.data, kind, kind === "hue" ? record[bits] : floats[crop * RECORD.words + bits]);
      }
      if (record[RECORD.blur]) {
        const radius = record[RECORD.blurRadius];
        boxBlur(image, { radius, inner: record[RECORD.blurInner], outer: record[RECORD.blurOuter] });
      }
      const threshold = record[RECORD.solarizeThreshold];
      const data = image.data.map((v) => v < threshold ? v : 255 - v);
      const target = crops.subarray(crop * perCrop, (crop + 1) * perCrop);
      if (layout === "levels") target.set(data);
      else storePatches(data, width, patchSize, Math.floor(width / patchSize), levels, target);
    }
  },
};

function storePatches(
  data: Uint8Array,
  width: number,
  p: number,
  gridWidth: number,
  levels: Float64Array,
  target: Float64Array,
): void {
  for (let i = 0; i < target.length; i++) {
    const kx = i % p, ky = Math.floor(i / p) % p, c = Math.floor(i / (p * p)) % 3;
    const patch = Math.floor(i / (3 * p * p));
    const y = Math.floor(patch / gridWidth) * p + ky, x = (patch % gridWidth) * p + kx;
    target[i] = levels[c * 256 + data[(y * width + x) * 3 + c]];
  }
}
