// What a crop is made of, and how a batch of them is written into the integer tables that kernels read.
import { ADJUSTMENT, type AdjustmentKind, hueShift } from "./color.ts";
import { type Axis, type Interpolation, maxTaps, tapHeaderWords, tapRowWords, writeTaps } from "./resample.ts";
import { type BoxWeights, boxWeights } from "./blur.ts";

/** Most adjustments of one crop: the four of colour jitter and grey. */
export const MAX_ADJUSTMENTS = 5;

/** Solarization threshold that changes nothing. */
export const NO_SOLARIZE = 256;

/** One colour adjustment; `factor` as in torchvision: 1 (0 for hue, in turns) changes nothing, `gray` has none. */
export interface Adjustment {
  /** What is adjusted. */
  kind: AdjustmentKind;
  /** By how much. */
  factor: number;
}

/**
 * Everything about one crop, in the order it is applied: box, resize, window, flip, adjustments, blur, solarize.
 *
 * Mutable, so that a loop can reuse its records.
 */
export interface CropParameters {
  /** Which image of the batch. */
  image: number;
  /** First row of the box, in pixels of the image. */
  top: number;
  /** First column of the box. */
  left: number;
  /** Rows of the box. */
  height: number;
  /** Columns of the box. */
  width: number;
  /** Size the box is resized to, and the window of it that is kept; by default exactly the crop. */
  resized?: { height: number; width: number; top: number; left: number };
  /** Filter of the resize. */
  interpolation: Interpolation;
  /** Left and right change places. */
  flip: boolean;
  /** In drawn order; at most {@link MAX_ADJUSTMENTS}, and one contrast among them. */
  adjustments: Adjustment[];
  /** Standard deviation in pixels of the crop; 0: no blur. */
  blurSigma: number;
  /** Levels from here on are inverted; {@link NO_SOLARIZE}: none. */
  solarizeThreshold: number;
}

/** A crop of the box that changes no colours. */
export function plainCrop(
  image: number,
  box: { top: number; left: number; height: number; width: number },
  interpolation: Interpolation = "bicubic",
): CropParameters {
  const { top, left, height, width } = box;
  return {
    image,
    top,
    left,
    height,
    width,
    interpolation,
    flip: false,
    adjustments: [],
    blurSigma: 0,
    solarizeThreshold: NO_SOLARIZE,
  };
}

/**
 * The evaluation transform: shorter side to `resize`, then the central `size` × `size`.
 *
 * @throws {RangeError} if `resize` is below `size`
 */
export function evaluationCrop(
  image: number,
  imageHeight: number,
  imageWidth: number,
  resize: number,
  size: number,
  interpolation: Interpolation = "bicubic",
): CropParameters {
  if (resize < size) throw new RangeError(`evaluation crop: shorter side ${resize} is below the crop size ${size}`);
  const crop = plainCrop(image, { top: 0, left: 0, height: imageHeight, width: imageWidth }, interpolation);
  const resized = shorterSideTo(resize, imageHeight, imageWidth);
  crop.resized = {
    ...resized,
    top: centralOffset(resized.height, size),
    left: centralOffset(resized.width, size),
  };
  return crop;
}

/** Size of an image whose shorter side becomes `size`; the longer one is cut to a whole number. */
export function shorterSideTo(size: number, height: number, width: number): { height: number; width: number } {
  return width <= height
    ? { height: Math.trunc((size * height) / width), width: size }
    : { height: size, width: Math.trunc((size * width) / height) };
}

/** Offset of a central window; halves go to the even number, as Python rounds. */
export function centralOffset(side: number, size: number): number {
  const half = (side - size) / 2, low = Math.floor(half);
  return half - low < 0.5 ? low : low % 2 === 0 ? low : low + 1;
}

/** Words of one crop's record, and what each holds. Kernels know these numbers. */
export const RECORD = {
  words: 32,
  /** Byte of the box's first pixel in the pixel buffer; bytes from one row to the next; rows of the box. */
  pixelOffset: 0,
  rowBytes: 1,
  boxRows: 2,
  /** Word of the axis's first tap in the tap buffer, and words from one row of weights to the next. */
  horizontalTaps: 3,
  horizontalStride: 4,
  verticalTaps: 5,
  verticalStride: 6,
  /** Number of adjustments, and which of them is contrast (the number when none is). */
  adjustments: 7,
  contrastAt: 8,
  /** Kinds, then factors: float32 bits, or the byte added to the hue. */
  kinds: 9,
  factors: 14,
  /** 0 or 1; then the box blur's radius and weights. */
  blur: 19,
  blurRadius: 20,
  blurInner: 21,
  blurOuter: 22,
  solarizeThreshold: 23,
} as const;

/** How many crops of what size, and how many taps an output sample may have. */
export interface CropCapacity {
  /** Crops of a batch. */
  readonly count: number;
  /** Rows of a crop. */
  readonly height: number;
  /** Columns of a crop. */
  readonly width: number;
  /** Taps an output sample may have along an axis, see {@link tapsForImages}. */
  readonly maxTaps: number;
}

/** Words of a tap buffer that fits any crops of this capacity. */
export function tapCapacity({ count, height, width, maxTaps }: CropCapacity): number {
  return count * (tapHeaderWords(height) + tapHeaderWords(width) + (height + width) * tapRowWords(maxTaps));
}

/** Taps an output sample needs at most when crops of `size` are cut from images with sides up to `longestSide`. */
export function tapsForImages(longestSide: number, size: number, interpolation: Interpolation = "bicubic"): number {
  return maxTaps(longestSide, size, interpolation);
}

/** Writes tables for batches of crops of one size into its own arrays, again and again without allocating. */
export class CropPlanner {
  /** [count, RECORD.words]: upload all of it. */
  readonly table: Int32Array<ArrayBuffer>;
  /** Upload the words that {@link plan} says are used. */
  readonly taps: Int32Array<ArrayBuffer>;
  readonly #floats: Float32Array<ArrayBuffer>;
  readonly #box: BoxWeights = { radius: 0, inner: 0, outer: 0 };
  readonly #axis: Axis = { source: 1, target: 1, windowStart: 0, windowCount: 1, reversed: false };

  /** Makes arrays of this capacity. */
  constructor(readonly capacity: CropCapacity) {
    this.table = new Int32Array(capacity.count * RECORD.words);
    this.taps = new Int32Array(tapCapacity(capacity));
    this.#floats = new Float32Array(this.table.buffer);
  }

  /**
   * Writes the records and taps of `crops`, one for each of the capacity's count.
   *
   * @param images [n, 3]: byte offset, height and width of each image in the pixel buffer
   * @param pixelBytes length of the pixel buffer, which every image must lie within
   * @returns words of `taps` in use
   * @throws {RangeError} if a crop leaves its image, an image the buffer, or a table its capacity
   */
  plan(images: Int32Array, pixelBytes: number, crops: readonly CropParameters[]): number {
    const { count } = this.capacity;
    if (crops.length !== count) throw new RangeError(`augment: ${crops.length} crops for a program of ${count}`);
    let used = 0;
    for (let i = 0; i < count; i++) {
      checkBox(images, pixelBytes, crops[i]);
      used = this.#writeGeometry(i * RECORD.words, images, crops[i], used);
      this.#writeColors(i * RECORD.words, crops[i]);
    }
    return used;
  }

  #writeGeometry(record: number, images: Int32Array, crop: CropParameters, used: number): number {
    const { height, width } = this.capacity;
    const { table } = this;
    const offset = images[crop.image * 3], rowBytes = images[crop.image * 3 + 2] * 3;
    table[record + RECORD.pixelOffset] = offset + crop.top * rowBytes + crop.left * 3;
    table[record + RECORD.rowBytes] = rowBytes;
    table[record + RECORD.boxRows] = crop.height;

    const { resized } = crop;
    if (
      resized && !(resized.top >= 0 && resized.left >= 0 && resized.top + height <= resized.height &&
        resized.left + width <= resized.width)
    ) {
      throw new RangeError(
        `augment: window ${height}×${width} at (${resized.top}, ${resized.left}) leaves ${resized.height}×${resized.width}`,
      );
    }
    table[record + RECORD.horizontalTaps] = used;
    table[record + RECORD.horizontalStride] = this.#writeAxis(
      used,
      crop.width,
      resized?.width ?? width,
      resized?.left ?? 0,
      width,
      crop.flip, // mirrored taps: nothing after them can tell the crop from a flipped one
      crop.interpolation,
    );
    used += tapHeaderWords(width) + width * table[record + RECORD.horizontalStride];
    table[record + RECORD.verticalTaps] = used;
    table[record + RECORD.verticalStride] = this.#writeAxis(
      used,
      crop.height,
      resized?.height ?? height,
      resized?.top ?? 0,
      height,
      false,
      crop.interpolation,
    );
    return used + tapHeaderWords(height) + height * table[record + RECORD.verticalStride];
  }

  #writeAxis(
    offset: number,
    source: number,
    target: number,
    windowStart: number,
    windowCount: number,
    reversed: boolean,
    interpolation: Interpolation,
  ): number {
    const needed = maxTaps(source, target, interpolation);
    if (needed > this.capacity.maxTaps) {
      throw new RangeError(
        `augment: ${source} pixels to ${target} take ${needed} taps, room was made for ${this.capacity.maxTaps}: ` +
          `raise maxTaps, or keep smaller images`,
      );
    }
    const axis = this.#axis;
    axis.source = source;
    axis.target = target;
    axis.windowStart = windowStart;
    axis.windowCount = windowCount;
    axis.reversed = reversed;
    return writeTaps(this.taps, offset, axis, interpolation);
  }

  #writeColors(record: number, crop: CropParameters): void {
    const { table } = this;
    const { adjustments } = crop;
    if (adjustments.length > MAX_ADJUSTMENTS) {
      throw new RangeError(`augment: ${adjustments.length} adjustments, a crop takes at most ${MAX_ADJUSTMENTS}`);
    }
    let contrastAt = adjustments.length;
    table.fill(0, record + RECORD.kinds, record + RECORD.factors + MAX_ADJUSTMENTS); // nothing of the batch before
    for (let k = 0; k < adjustments.length; k++) {
      const { kind, factor } = adjustments[k];
      if (!Number.isFinite(factor)) throw new RangeError(`augment: ${kind} factor ${factor} is not a finite number`);
      if (kind === "contrast") {
        if (contrastAt < adjustments.length) throw new RangeError("augment: a crop takes one contrast adjustment");
        contrastAt = k;
      }
      table[record + RECORD.kinds + k] = ADJUSTMENT[kind];
      if (kind === "hue") table[record + RECORD.factors + k] = hueShift(factor);
      else this.#floats[record + RECORD.factors + k] = factor;
    }
    table[record + RECORD.adjustments] = adjustments.length;
    table[record + RECORD.contrastAt] = contrastAt;

    if (!(crop.blurSigma >= 0 && crop.blurSigma < 1000)) {
      throw new RangeError(`augment: blur sigma ${crop.blurSigma} is not between 0 and 1000 pixels`);
    }
    table[record + RECORD.blur] = crop.blurSigma > 0 ? 1 : 0;
    const box = boxWeights(crop.blurSigma, this.#box);
    table[record + RECORD.blurRadius] = box.radius;
    table[record + RECORD.blurInner] = box.inner;
    table[record + RECORD.blurOuter] = box.outer;
    table[record + RECORD.solarizeThreshold] = crop.solarizeThreshold;
  }
}

/** Kernels trust the tables, so what is outside an image must be refused here. */
function checkBox(images: Int32Array, pixelBytes: number, crop: CropParameters): void {
  const { image, top, left, height, width } = crop;
  if (!(Number.isInteger(image) && image >= 0 && image * 3 + 2 < images.length)) {
    throw new RangeError(`augment: crop of image ${image}, the batch has ${Math.floor(images.length / 3)}`);
  }
  const offset = images[image * 3], imageHeight = images[image * 3 + 1], imageWidth = images[image * 3 + 2];
  if (!(offset >= 0 && imageHeight > 0 && imageWidth > 0 && offset + imageHeight * imageWidth * 3 <= pixelBytes)) {
    throw new RangeError(
      `augment: image ${image} (${imageHeight}×${imageWidth} at byte ${offset}) leaves the ${pixelBytes} bytes of pixels`,
    );
  }
  const whole = Number.isInteger(top) && Number.isInteger(left) && Number.isInteger(height) && Number.isInteger(width);
  if (
    !whole || top < 0 || left < 0 || height < 1 || width < 1 || top + height > imageHeight || left + width > imageWidth
  ) {
    throw new RangeError(
      `augment: box ${height}×${width} at (${top}, ${left}) leaves image ${image} of ${imageHeight}×${imageWidth}`,
    );
  }
}
