// What fine-tuning does to pixels on the host: random crops, RandAugment, erasing, and CutMix's rectangles.

import { type CropParameters, plainCrop } from "../../../models/image/crop.ts";
import { eraseRectangle } from "../../../models/image/erase.ts";
import { cropOnHost } from "../../../models/image/host_crop.ts";
import { randAugment } from "../../../models/image/rand_augment.ts";
import { type Raster, raster } from "../../../models/image/raster.ts";
import type { Normalization } from "../../../models/graph/ops/augment.ts";
import { CounterRandom, STREAM } from "../../../models/rng.ts";
import type { PixelExtremes } from "../../crop_feed.ts";
import type { PixelBatch } from "../../data/dataset.ts";
import type { Rectangle } from "./mixing.ts";

/** What is done to a crop. */
export interface FinetuneCropOptions {
  /** Side of a crop in pixels. */
  readonly cropSize: number;
  /** Magnitude of RandAugment, 0 … 10; 0: none. */
  readonly randAugment: number;
  /** Probability that a rectangle becomes noise. */
  readonly erasing: number;
  /** CutMix may ask for rectangles of other crops. */
  readonly cutmix: number;
  /** Mean and deviation of the colours. */
  readonly normalization: Normalization;
  readonly seed: number;
}

/** DeiT's RandAugment: two operations an image, magnitudes with this deviation. */
const LAYERS = 2, DEVIATION = 0.5;

/** Whether crops are made on the host: the device's own kernels do box, resize and flip alone as well, and faster. */
export function cropsOnHost({ randAugment, erasing, cutmix }: FinetuneCropOptions): boolean {
  return randAugment > 0 || erasing > 0 || cutmix > 0;
}

/** Sizes of what {@linkcode makeCrops} returns. */
export function cropExtremes(cropSize: number): PixelExtremes {
  return { longestSide: cropSize, batchBytes: (images) => images * bytesOf(cropSize) };
}

const bytesOf = (side: number) => Math.ceil(3 * side * side / 4) * 4; // images begin at multiples of 4 bytes

/**
 * Makes the crops of a batch: box, resize and flip as drawn, then RandAugment, erasing, and `box` of each image's partner.
 *
 * @param images that count: the first ones; the others are left black
 * @param step of the run: with seed and place in the batch all that the draws depend on
 * @returns a batch of crops, and the crops of them that leave them as they are
 */
export function makeCrops(
  options: FinetuneCropOptions,
  { pixels, table }: PixelBatch,
  crops: readonly CropParameters[],
  images: number,
  step: number,
  box?: Rectangle,
): { batch: PixelBatch; crops: CropParameters[] } {
  const { cropSize: side, normalization, seed } = options;
  const { mean, deviation } = normalization;
  const policy = {
    magnitude: options.randAugment,
    deviation: DEVIATION,
    layers: LAYERS,
    fill: mean.map((v) => Math.min(255, Math.round(255 * v))),
  };
  const random = new CounterRandom(seed, STREAM.evaluation);
  const made: Raster[] = [];
  for (let i = 0; i < images; i++) {
    const [offset, height, width] = table.subarray(3 * crops[i].image);
    const image = raster(pixels.subarray(offset, offset + 3 * height * width), height, width);
    random.restart(step, i, 1);
    let crop = cropOnHost(image, crops[i], side, side);
    if (policy.magnitude > 0) crop = randAugment(crop, random, policy);
    if (random.chance(options.erasing)) eraseRectangle(crop, random, { mean, deviation });
    made.push(crop);
  }
  const whole = { top: 0, left: 0, height: side, width: side }, bytes = bytesOf(side);
  const batch = { pixels: new Uint8Array(crops.length * bytes), table: new Int32Array(3 * crops.length) };
  crops.forEach((_, i) => batch.table.set([i * bytes, side, side], 3 * i));
  for (let i = 0; i < images; i++) {
    const target = batch.pixels.subarray(i * bytes, (i + 1) * bytes);
    target.set(made[i].data);
    if (!box) continue;
    const partner = made[images - 1 - i].data;
    for (let y = box.top; y < box.top + box.height; y++) {
      const from = 3 * (y * side + box.left);
      target.set(partner.subarray(from, from + 3 * box.width), from);
    }
  }
  return { batch, crops: crops.map((_, i) => plainCrop(i, whole)) };
}
