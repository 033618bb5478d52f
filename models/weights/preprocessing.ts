// What is done to images before a network sees them, as preprocessor_config.json of a Hugging Face folder says it.

import { IMAGENET_NORMALIZATION, type Normalization } from "../graph/ops/augment.ts";
import type { Interpolation } from "../image/resample.ts";

/** Resize, central crop, normalisation, in this order. */
export interface Preprocessing {
  /** Pixels of the shorter side, in proportion; or of both sides, whatever the proportions; undefined: as images are. */
  readonly resize?: { readonly shorterSide: number } | { readonly height: number; readonly width: number };
  /** Side of the central square in pixels; undefined: the whole image. */
  readonly cropSize?: number;
  /** Filter of the resize. */
  readonly interpolation: Interpolation;
  /** What pixels are normalised by. */
  readonly normalization: Normalization;
}

/** Pillow's numbers of its filters. */
const FILTERS: Readonly<Record<number, Interpolation>> = { 1: "lanczos", 2: "bilinear", 3: "bicubic" };

/**
 * Reads the JSON of `preprocessor_config.json`, of image processors and of the older feature extractors.
 *
 * @param name of the file, for messages
 * @throws {SyntaxError} if a value makes no sense, or asks for what is not done here
 */
export function parsePreprocessing(json: Readonly<Record<string, unknown>>, name: string): Preprocessing {
  const wrong = (key: string, wanted: string) =>
    new SyntaxError(`${name}: ${key} ${JSON.stringify(json[key])?.slice(0, 60)}: should be ${wanted}`);
  const side = (key: string, value: unknown): number => {
    if (typeof value === "number" && Number.isSafeInteger(value) && value >= 1 && value <= 65536) return value;
    throw wrong(key, "whole numbers of pixels");
  };
  const sides = (key: string): Preprocessing["resize"] => {
    const value = json[key];
    if (typeof value !== "object" || value === null) return { shorterSide: side(key, value) };
    const { shortest_edge: shortest, height, width } = value as Record<string, unknown>;
    if (shortest !== undefined) return { shorterSide: side(key, shortest) };
    return { height: side(key, height), width: side(key, width) };
  };
  const rgb = (key: string, fallback: readonly number[], least: number) => {
    const value = json[key] ?? fallback;
    if (
      !Array.isArray(value) || value.length !== 3 || !value.every((x) => Number.isFinite(x) && x >= least && x < 1e3)
    ) throw wrong(key, "three numbers");
    return value as number[];
  };
  if (json.rescale_factor !== undefined && json.do_rescale !== false) {
    const factor = json.rescale_factor;
    if (typeof factor !== "number" || Math.abs(factor * 255 - 1) > 1e-4) throw wrong("rescale_factor", "1/255");
  }
  const interpolation = FILTERS[json.resample as number ?? 2];
  if (!interpolation) throw wrong("resample", "1, 2 or 3 (Lanczos, bilinear, bicubic)");
  // The older extractors of ViTs had `size` alone and squashed; a crop came with a shorter side.
  const crops = json.do_center_crop === true || json.do_center_crop === undefined && json.crop_size !== undefined;
  let resize = json.do_resize === false || json.size === undefined ? undefined : sides("size");
  if (resize && "shorterSide" in resize && typeof json.size === "number" && !crops) {
    resize = { height: resize.shorterSide, width: resize.shorterSide };
  }
  const crop = crops && json.crop_size !== undefined ? sides("crop_size") : undefined;
  if (crop && "height" in crop && crop.height !== crop.width) throw wrong("crop_size", "a square");
  const plain = json.do_normalize === false;
  return {
    resize,
    cropSize: crop && ("height" in crop ? crop.height : crop.shorterSide),
    interpolation,
    normalization: {
      mean: plain ? [0, 0, 0] : rgb("image_mean", IMAGENET_NORMALIZATION.mean, -1e3),
      deviation: plain ? [1, 1, 1] : rgb("image_std", IMAGENET_NORMALIZATION.deviation, 1e-6),
    },
  };
}

/** The side of the square that such a preprocessing ends in; undefined if it ends in no square. */
export function squareOf({ resize, cropSize }: Preprocessing): number | undefined {
  if (cropSize !== undefined) return cropSize;
  return resize && "height" in resize && resize.height === resize.width ? resize.height : undefined;
}

/** The same, ending in a square of another side: what is resized before it grows in proportion. */
export function resizedTo(preprocessing: Preprocessing, cropSize: number): Preprocessing {
  const { resize } = preprocessing, native = squareOf(preprocessing);
  if (native === cropSize) return preprocessing;
  if (native === undefined || resize === undefined) {
    return { ...preprocessing, resize: { shorterSide: Math.round(cropSize * 256 / 224) }, cropSize };
  }
  const scale = (side: number) => Math.max(cropSize, Math.round(side * cropSize / native));
  return {
    ...preprocessing,
    resize: "height" in resize
      ? { height: scale(resize.height), width: scale(resize.width) }
      : { shorterSide: scale(resize.shorterSide) },
    cropSize,
  };
}
