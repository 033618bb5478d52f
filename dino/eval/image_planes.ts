// Single images of a data set on the host: as bytes, and as the normalised planes a network reads.

import type { Normalization } from "../../models/graph/ops/augment.ts";
import { centralOffset, shorterSideTo } from "../../models/image/crop.ts";
import { type Raster, raster } from "../../models/image/raster.ts";
import { resize } from "../../models/image/resample.ts";
import type { Preprocessing } from "../../models/weights/preprocessing.ts";
import type { PixelSource } from "../data/dataset.ts";
import { resizeFor } from "./features.ts";

/** Image `i` of a source. */
export async function readRaster(source: PixelSource, i: number): Promise<Raster> {
  const { pixels, table: [offset, height, width] } = await source.readBatch([i]);
  return raster(pixels.slice(offset, offset + height * width * 3), height, width);
}

/** (level / 255 − mean) / deviation of each channel, [3, height, width]. */
export function normalizedPlanes(image: Raster, { mean, deviation }: Normalization): Float32Array<ArrayBuffer> {
  const { data, height, width } = image;
  const count = height * width;
  const planes = new Float32Array(3 * count);
  for (let c = 0; c < 3; c++) {
    const scale = 1 / (255 * deviation[c]), shift = mean[c] / deviation[c];
    for (let i = 0; i < count; i++) planes[c * count + i] = data[3 * i + c] * scale - shift;
  }
  return planes;
}

/** Cuts right and bottom edges so that both sides are multiples of the patch size. */
export function cropToPatches(image: Raster, patchSize: number): Raster {
  return cropAt(image, 0, 0, image.height - image.height % patchSize, image.width - image.width % patchSize);
}

function cropAt(image: Raster, top: number, left: number, height: number, width: number): Raster {
  if (height === image.height && width === image.width) return image;
  const data = new Uint8Array(height * width * 3);
  for (let y = 0; y < height; y++) {
    const from = ((top + y) * image.width + left) * 3;
    data.set(image.data.subarray(from, from + width * 3), y * width * 3);
  }
  return raster(data, height, width);
}

/**
 * An image whose shorter side is `side` (bicubic, as the evaluations resize), cut to whole patches.
 *
 * @param side null keeps the size there is
 */
export function fitShorterSide(image: Raster, side: number | null, patchSize: number): Raster {
  if (side === null) return cropToPatches(image, patchSize);
  const { height, width } = shorterSideTo(side, image.height, image.width);
  return cropToPatches(resize(image, height, width, "bicubic"), patchSize);
}

/**
 * An image as its network's own preprocessing makes it.
 *
 * @throws {RangeError} if that ends in a crop larger than the resized image
 */
export function preparedRaster(image: Raster, { resize: to, cropSize, interpolation }: Preprocessing): Raster {
  const { height, width } = !to
    ? image
    : "height" in to
    ? to
    : shorterSideTo(to.shorterSide, image.height, image.width);
  const resized = height === image.height && width === image.width
    ? image
    : resize(image, height, width, interpolation);
  if (cropSize === undefined || height === cropSize && width === cropSize) return resized;
  if (height < cropSize || width < cropSize) {
    throw new RangeError(`an image of ${width} × ${height} pixels has no crop of ${cropSize}: enlarge it`);
  }
  return cropAt(resized, centralOffset(height, cropSize), centralOffset(width, cropSize), cropSize, cropSize);
}

/** The evaluation crop: shorter side to 256 for a crop of 224 and in proportion, then the centre. */
export function centralRaster(image: Raster, cropSize: number): Raster {
  if (image.height === cropSize && image.width === cropSize) return image;
  const { height, width } = shorterSideTo(resizeFor(cropSize), image.height, image.width);
  const resized = resize(image, height, width, "bicubic");
  return cropAt(resized, centralOffset(height, cropSize), centralOffset(width, cropSize), cropSize, cropSize);
}
