// Training crops of the linear probe and of fine-tuning: a random box of 8 % of the image or more, flipped half the time.

import { type CropParameters, plainCrop } from "../../models/image/crop.ts";
import type { Interpolation } from "../../models/image/resample.ts";
import { CounterRandom, STREAM } from "../../models/rng.ts";
import { drawBox } from "../data/multicrop.ts";
import type { CropChooser } from "./features.ts";

/** torchvision's defaults for RandomResizedCrop, which the reference leaves alone. */
const SCALE = [0.08, 1], RATIO = [3 / 4, 4 / 3];

/** Crops of an epoch: a function of seed, epoch and image alone. */
export function flipAndCrop(seed: number, epoch: number, interpolation: Interpolation = "bilinear"): CropChooser {
  const random = new CounterRandom(seed, STREAM.evaluation);
  return (image, height, width, index): CropParameters => {
    random.restart(epoch, index);
    const crop = plainCrop(image, { top: 0, left: 0, height, width }, interpolation);
    drawBox(random, height, width, SCALE, RATIO, crop);
    crop.flip = random.chance(0.5);
    return crop;
  };
}
