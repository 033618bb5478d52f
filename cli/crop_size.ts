// The crop that an evaluation takes: what was asked for, or what the network was made for.

import type { VitConfig } from "../models/vit.ts";

/** A side in pixels. @throws {RangeError} if it is not a multiple of the patch size, naming the nearest that is */
export function checkCropSize(asked: number | null, { imageSize, patchSize }: VitConfig): number {
  const size = asked ?? imageSize;
  if (size % patchSize === 0) return size;
  const nearest = Math.max(1, Math.round(size / patchSize)) * patchSize;
  throw new RangeError(
    `--crop-size ${size} is not a multiple of the network's patch size ${patchSize}: use --crop-size ${nearest}`,
  );
}
