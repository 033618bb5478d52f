// The crops of DINO: their boxes and colours drawn by counter, and batches of them planned for a device.
import { CounterRandom, STREAM } from "../../models/rng.ts";
import {
  type CropCapacity,
  type CropParameters,
  CropPlanner,
  NO_SOLARIZE,
  plainCrop,
  tapsForImages,
} from "../../models/image/crop.ts";
import type { AdjustmentKind } from "../../models/image/color.ts";
import type { FittedConfig } from "../config.ts";

/** What the views of an image are drawn from: a part of the configuration, where every field is explained. */
export type MultiCropOptions = Pick<
  FittedConfig,
  | "globalCropSize"
  | "localCropSize"
  | "localCropsNumber"
  | "globalCropsScale"
  | "localCropsScale"
  | "cropRatio"
  | "flipProb"
  | "jitterProb"
  | "brightness"
  | "contrast"
  | "saturation"
  | "hue"
  | "grayProb"
  | "blurProbGlobal1"
  | "blurProbGlobal2"
  | "blurProbLocal"
  | "blurSigma"
  | "scaleBlur"
  | "solarizeProb"
  | "solarizeThreshold"
>;

/** Views 0 and 1 are global, the others local. */
export const GLOBAL_VIEWS = 2;

/** Crop size the published blur belongs to. */
const BLUR_REFERENCE_SIZE = 224;

const ATTEMPTS = 10; // of torchvision, before it takes the central box

/** A box in an image, in pixels. */
export interface Box {
  /** First row. */
  top: number;
  /** First column. */
  left: number;
  /** Rows. */
  height: number;
  /** Columns. */
  width: number;
}

/**
 * Draws a box as torchvision's RandomResizedCrop: a fraction of the area, a log-uniform aspect ratio, ten
 * attempts, then the largest central box of an allowed ratio.
 *
 * @param scale smallest and largest fraction of the area
 * @param ratio smallest and largest width over height
 */
export function drawBox<B extends Box>(
  random: CounterRandom,
  height: number,
  width: number,
  scale: readonly number[],
  ratio: readonly number[],
  box: B,
): B {
  const area = height * width;
  const lowest = Math.log(ratio[0]), highest = Math.log(ratio[1]);
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const target = area * random.uniform(scale[0], scale[1]);
    const aspect = Math.exp(random.uniform(lowest, highest));
    const w = roundHalfEven(Math.sqrt(target * aspect)), h = roundHalfEven(Math.sqrt(target / aspect));
    if (w > 0 && w <= width && h > 0 && h <= height) {
      box.top = random.integer(height - h + 1);
      box.left = random.integer(width - w + 1);
      box.height = h;
      box.width = w;
      return box;
    }
  }
  const aspect = width / height;
  box.width = aspect > ratio[1] ? Math.max(roundHalfEven(height * ratio[1]), 1) : width;
  box.height = aspect < ratio[0] ? Math.max(roundHalfEven(width / ratio[0]), 1) : height;
  box.top = Math.floor((height - box.height) / 2);
  box.left = Math.floor((width - box.width) / 2);
  return box;
}

/** Python's round. */
function roundHalfEven(x: number): number {
  const low = Math.floor(x), above = x - low;
  return above < 0.5 || (above === 0.5 && low % 2 === 0) ? low : low + 1;
}

/** Draws the views of images; the same (seed, epoch, image, view) gives the same crop on every machine and backend. */
export class CropSampler {
  readonly #random: CounterRandom;
  readonly #order: AdjustmentKind[] = ["brightness", "contrast", "saturation", "hue"];
  readonly #blurScale: number;

  /**
   * Prepares draws.
   *
   * @param seed of the run
   */
  constructor(readonly options: MultiCropOptions, seed: number) {
    this.#random = new CounterRandom(seed, STREAM.augmentation);
    this.#blurScale = options.scaleBlur ? options.globalCropSize / BLUR_REFERENCE_SIZE : 1;
  }

  /** Number of views of an image. */
  get views(): number {
    return GLOBAL_VIEWS + this.options.localCropsNumber;
  }

  /**
   * Draws one crop into `crop`, whose `image` is left alone.
   *
   * @param epoch counted from 0
   * @param image index in the data set, not in the batch
   */
  draw(crop: CropParameters, epoch: number, image: number, view: number, height: number, width: number): void {
    const { options } = this, random = this.#random.restart(epoch, image, view);
    const local = view >= GLOBAL_VIEWS;
    drawBox(random, height, width, local ? options.localCropsScale : options.globalCropsScale, options.cropRatio, crop);
    crop.flip = random.chance(options.flipProb);

    crop.adjustments.length = 0;
    if (random.chance(options.jitterProb)) this.#drawJitter(crop);
    if (random.chance(options.grayProb)) crop.adjustments.push({ kind: "gray", factor: 1 });

    const blurProb = local ? options.blurProbLocal : view === 0 ? options.blurProbGlobal1 : options.blurProbGlobal2;
    const blurred = random.chance(blurProb);
    const sigma = random.uniform(options.blurSigma[0], options.blurSigma[1]) * this.#blurScale;
    crop.blurSigma = blurred ? sigma : 0;
    const solarized = view === 1 && random.chance(options.solarizeProb);
    crop.solarizeThreshold = solarized ? options.solarizeThreshold : NO_SOLARIZE;
  }

  #drawJitter(crop: CropParameters): void {
    const { options } = this, random = this.#random, order = this.#order;
    order[0] = "brightness";
    order[1] = "contrast";
    order[2] = "saturation";
    order[3] = "hue";
    for (let i = order.length - 1; i > 0; i--) {
      const j = random.integer(i + 1), kept = order[i];
      order[i] = order[j];
      order[j] = kept;
    }
    for (const kind of order) {
      const strength = options[kind as "brightness" | "contrast" | "saturation" | "hue"];
      const drawn = random.float(); // drawn even at strength 0, so that one strength does not disturb the others
      if (strength === 0) continue;
      const low = kind === "hue" ? -strength : Math.max(0, 1 - strength);
      const high = kind === "hue" ? strength : 1 + strength;
      crop.adjustments.push({ kind, factor: low + (high - low) * drawn });
    }
  }
}

/** The crops of one size in a batch, and the tables to upload for them. */
export interface CropGroup {
  /** Side of the crops, in pixels. */
  readonly size: number;
  /** Number of the group's first view. */
  readonly firstView: number;
  /** Views of each image. */
  readonly views: number;
  /** View-major, as the networks take them: the crop of image b in view v is number (v − firstView)·batch + b. */
  readonly crops: readonly CropParameters[];
  /** Holds the tables of the last batch. */
  readonly planner: CropPlanner;
  /** Words of `planner.taps` that the last batch uses. */
  tapWords: number;
}

/** Plans all views of a batch: the global crops in one group, the local ones in another. */
export class MultiCropPlanner {
  /** Global crops, then local ones where there are any. */
  readonly groups: readonly CropGroup[];
  readonly #sampler: CropSampler;

  /**
   * Makes room for the tables of a batch.
   *
   * @param batch images a step
   * @param longestSide of any image of the data set, in pixels: decides how many taps there is room for
   */
  constructor(options: MultiCropOptions, seed: number, readonly batch: number, longestSide: number) {
    this.#sampler = new CropSampler(options, seed);
    const { globalCropSize, localCropSize, localCropsNumber } = options;
    this.groups = [
      cropGroup(globalCropSize, 0, GLOBAL_VIEWS, batch, longestSide),
      cropGroup(localCropSize, GLOBAL_VIEWS, localCropsNumber, batch, longestSide),
    ].filter((group) => group.views > 0);
  }

  /**
   * Draws and plans the crops of a batch into the groups' tables.
   *
   * @param images [batch, 3]: byte offset, height and width of each image in the pixel buffer
   * @param indices of the images in the data set, in the same order
   * @param pixelBytes room of the pixel buffer
   * @throws {RangeError} if there are not `batch` images, or they do not fit the capacities
   */
  plan(images: Int32Array, indices: ArrayLike<number>, epoch: number, pixelBytes: number): void {
    if (indices.length !== this.batch || images.length !== 3 * this.batch) {
      throw new RangeError(`multi-crop: ${indices.length} images for a batch of ${this.batch}`);
    }
    for (const group of this.groups) {
      for (let i = 0; i < group.crops.length; i++) {
        const b = i % this.batch, view = group.firstView + Math.floor(i / this.batch);
        this.#sampler.draw(group.crops[i], epoch, indices[b], view, images[3 * b + 1], images[3 * b + 2]);
      }
      group.tapWords = group.planner.plan(images, pixelBytes, group.crops);
    }
  }
}

/** Room for the crops of one size of a batch. */
export function cropCapacity(size: number, count: number, longestSide: number): CropCapacity {
  return { count, height: size, width: size, maxTaps: tapsForImages(longestSide, size) };
}

function cropGroup(size: number, firstView: number, views: number, batch: number, longestSide: number): CropGroup {
  const capacity = cropCapacity(size, views * batch, longestSide);
  const crops = Array.from(
    { length: capacity.count },
    (_, i) => plainCrop(i % batch, { top: 0, left: 0, height: 1, width: 1 }),
  );
  return { size, firstView, views, crops, planner: new CropPlanner(capacity), tapWords: 0 };
}
