// Descriptors of whole images for retrieval and copy detection, from one encoder.

import type { Normalization } from "../../../models/graph/ops/augment.ts";
import type { Raster } from "../../../models/image/raster.ts";
import { clsAndGem, gemPool, meanOverScales, rmac } from "./descriptors.ts";
import { CLS_FEATURES, type Encoded, type ImageEncoder } from "../encoder.ts";
import { normalizedPlanes } from "../image_planes.ts";
import { resizeBilinear } from "../resize_bilinear.ts";

/** What a descriptor is made of. */
export type DescriptorKind = "cls" | "gem" | "rmac" | "cls+gem";

/** How images are described. */
export interface DescribeOptions {
  /** What is pooled. */
  readonly kind: DescriptorKind;
  /** Of the pixels. */
  readonly normalization: Normalization;
  /** Power of GeM; default the reference's 4. MultiGrain's descriptors take 3. */
  readonly power?: number;
  /** Scales over which descriptors are averaged; default the image's own. */
  readonly scales?: readonly number[];
}

/** Length of a descriptor. */
export function descriptorWidth(embedDim: number, kind: DescriptorKind): number {
  return kind === "cls+gem" ? 2 * embedDim : embedDim;
}

/**
 * Describes one image at its own size. Over several scales the mean is taken and scaled to length 1; at one scale the
 * descriptor is left as long as it is.
 */
export async function describeImage(
  encoder: ImageEncoder,
  image: Raster,
  { kind, normalization, power, scales = [1] }: DescribeOptions,
): Promise<Float32Array> {
  const { height, width } = image;
  const planes = normalizedPlanes(image, normalization);
  const found: Float32Array[] = [];
  for (const scale of scales) {
    const at = scale === 1 ? { data: planes, height, width } : resizeBilinear(planes, 3, height, width, scale);
    const wanted = kind === "cls" ? CLS_FEATURES : { tokens: true };
    found.push(descriptorOf(await encoder.encode(at.data, 1, at.height, at.width, wanted), encoder, kind, power));
  }
  return scales.length === 1 ? found[0] : meanOverScales(found);
}

function descriptorOf(
  encoded: Encoded,
  { config }: ImageEncoder,
  kind: DescriptorKind,
  power?: number,
): Float32Array {
  const { gridHeight, gridWidth, features, tokens } = encoded;
  const D = config.embedDim;
  switch (kind) {
    case "cls":
      return features!;
    case "gem":
      return gemPool(tokens!, D, power);
    case "rmac":
      return rmac(tokens!, D, gridHeight, gridWidth);
    case "cls+gem":
      return clsAndGem(tokens!, D, power);
  }
}
