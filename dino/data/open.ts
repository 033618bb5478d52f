// Opens a path as pixels, whatever it holds: the one call that training and evaluation make.

import type { DataEvent, PixelLocator, PixelSource, Split } from "./dataset.ts";
import type { Decoder } from "./decoder.ts";

/** How `openPixels` reads a path. */
export interface OpenOptions {
  /** Which half of CIFAR, MNIST and the like. Default "train". */
  split?: Split;
  /** Take the first N images only. */
  limit?: number;
  /** Apply EXIF orientation. Default true. */
  exif?: boolean;
  /** Raw formats (CIFAR, IDX): surround smaller images with zeros up to this height and width. */
  pad?: number;
  /** Where decoded images are kept. Without it they are kept in memory, up to `budget`. */
  cacheDirectory?: string;
  /** "auto": the original size while it fits `budget`, else the shorter side at 2 × `crop`; or one of the two, or a number. */
  cacheSize?: "auto" | "original" | number;
  /** Largest crop that will be taken, in pixels. Default 224. */
  crop?: number;
  /** Bytes that decoded images may take. Default 20 GB on disk, 2 GB in memory. */
  budget?: number;
  /** Default: sharp in this process. */
  decoder?: Decoder;
  onEvent?: (event: DataEvent) => void;
  signal?: AbortSignal;
}

/**
 * Opens images under a path: a folder of images, a text list, CIFAR-10/100 or IDX files, a tar or zip archive.
 *
 * Folders, lists and archives are decoded once, into a cache that later calls and other processes read.
 *
 * @throws {Deno.errors.NotFound} if the path does not exist
 * @throws {RangeError} if it holds no readable image
 */
export function openPixels(_path: string, _options: OpenOptions = {}): Promise<PixelSource> {
  throw new Error("openPixels: under construction");
}

/** Opens what `source.locator` of another process names; decodes nothing. */
export function reopenPixels(_locator: PixelLocator): Promise<PixelSource> {
  throw new Error("reopenPixels: under construction");
}
