// One crop on the host: box, resize and flip, the bytes that the augmentation kernels make of the same parameters.

import type { CropParameters } from "./crop.ts";
import { emptyRaster, type Raster } from "./raster.ts";
import { type Axis, resampleWithTaps, tapWords, writeTaps } from "./resample.ts";

/**
 * Cuts the box of a crop out of an image and resizes it; colours, blur and windows are not for the host.
 *
 * @throws {RangeError} if the box leaves the image, or the crop asks for more than box, resize and flip
 */
export function cropOnHost(image: Raster, crop: CropParameters, height: number, width: number): Raster {
  const { top, left, interpolation, flip } = crop;
  if (top < 0 || left < 0 || top + crop.height > image.height || left + crop.width > image.width) {
    throw new RangeError(
      `crop ${crop.height}×${crop.width} at ${top}, ${left} leaves its image of ${image.height}×${image.width}`,
    );
  }
  if (crop.resized || crop.adjustments.length > 0 || crop.blurSigma > 0) {
    throw new RangeError("cropOnHost: takes box, resize and flip only: let the device make the other crops");
  }
  const axis = (source: number, target: number, reversed: boolean): Axis => {
    return { source, target, windowStart: 0, windowCount: target, reversed };
  };
  const across = axis(crop.width, width, flip), down = axis(crop.height, height, false);
  const downOffset = tapWords(across, interpolation);
  const taps = new Int32Array(downOffset + tapWords(down, interpolation));
  const horizontal = { offset: 0, stride: writeTaps(taps, 0, across, interpolation) };
  const vertical = { offset: downOffset, stride: writeTaps(taps, downOffset, down, interpolation) };
  const target = emptyRaster(height, width);
  const rowBytes = 3 * image.width;
  resampleWithTaps(image.data, top * rowBytes + 3 * left, rowBytes, crop.height, taps, horizontal, vertical, target);
  return target;
}
