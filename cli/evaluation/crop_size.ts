// The crop that an evaluation takes: what was asked for, what the weights say, or what the network was made for.

import { type BackboneConfig, cropMultiple } from "../../models/backbone.ts";
import { type Preprocessing, squareOf } from "../../models/weights/preprocessing.ts";

/** A side in pixels. @throws {RangeError} if the network cannot take it, naming the nearest that it can */
export function checkCropSize(
  asked: number | null,
  backbone: BackboneConfig,
  preprocessing?: Preprocessing,
  flag = "--crop-size",
): number {
  const size = asked ?? (preprocessing && squareOf(preprocessing)) ?? backbone.imageSize;
  const multiple = cropMultiple(backbone);
  if (size % multiple === 0) return size;
  const nearest = Math.max(1, Math.round(size / multiple)) * multiple;
  throw new RangeError(
    `${flag} ${size} is not a multiple of the network's patch size ${multiple}: use ${flag} ${nearest}`,
  );
}
