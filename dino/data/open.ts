// Opens a path as pixels, whatever it holds: the one call that training and evaluation make.

import { resolve } from "node:path";
import { isArchiveName, openArchive } from "./archive.ts";
import { decodeDataset, type ImageSizeChoice } from "./cache.ts";
import { openCifar } from "./cifar.ts";
import type { DataEvent, EncodedDataset, PixelLocator, PixelSource, Split } from "./dataset.ts";
import type { Decoder } from "./decoder.ts";
import { filesDataset, openFolder } from "./folder.ts";
import { isIdxImageName, openIdx } from "./idx.ts";
import { isListName, openList } from "./list.ts";
import { loadSample } from "./sample.ts";
import { openView } from "./view.ts";

export type { ImageSizeChoice };

/** How `openPixels` reads a path. */
export interface OpenOptions {
  /** Which half of a data set that ships in two. Default "train". */
  split?: Split;
  /** Take the first N images only. */
  limit?: number;
  /** Image files one by one, in this order and named as here, instead of what lies at the path. */
  files?: readonly string[];
  /** Apply EXIF orientation. Default true. */
  exif?: boolean;
  /** Raw formats (CIFAR, IDX): surround smaller images with zeros up to this height and width. */
  pad?: number;
  /** Where decoded images are kept. Without it they are kept in memory, up to `budget`. */
  cacheDirectory?: string;
  /**
   * "auto": the original size while it fits `budget` and images are not huge, else the shorter side at 2 × `crop`; "fitting": the
   * same without a look at single images, up to what the disk has; or one of the two, as a number of pixels.
   */
  cacheSize?: ImageSizeChoice;
  /** Largest crop that will be taken, in pixels. Default 224. */
  crop?: number;
  /** Bytes that decoded images may take. Default 20 GB on disk, 2 GB in memory. */
  budget?: number;
  /** Try images again that could not be read before. */
  retry?: boolean;
  /** Default: sharp in this process. */
  decoder?: Decoder;
  /** Told what is found, decided, skipped and done. */
  onEvent?: (event: DataEvent) => void;
  /** Stops decoding; what is decoded stays in the cache. */
  signal?: AbortSignal;
}

/**
 * Opens images under a path: a folder of images, a text list, CIFAR-10/100 or IDX files, a tar or zip archive.
 *
 * Folders, lists and archives are decoded once, into a cache that later calls and other processes read.
 *
 * @throws {Deno.errors.NotFound} if the path does not exist
 * @throws {RangeError} if it holds no readable image, or is of no known kind
 * @throws {SyntaxError} if a file of the data set is damaged
 */
export async function openPixels(path: string, options: OpenOptions = {}): Promise<PixelSource> {
  const { split = "train", limit, pad, crop = 224, onEvent = () => {}, cacheSize, files } = options;
  checkCount("limit", limit);
  checkCount("cacheSize", typeof cacheSize === "number" ? cacheSize : undefined);
  const found = files
    ? await filesDataset({ kind: "list", name: path, ids: files.slice(0, limit), pathOf: (file) => resolve(file) })
    : await find(path, split, limit, pad);
  onEvent({
    type: "found",
    name: found.name,
    kind: "kind" in found ? found.kind : "raw",
    images: found.length,
    classes: found.classNames?.length ?? 0,
    foreign: "kind" in found ? found.foreign : undefined,
  });
  if (!("kind" in found)) return found;
  try {
    return await decodeDataset(found, {
      directory: options.cacheDirectory,
      size: cacheSize,
      fallbackSide: 2 * crop,
      budget: options.budget,
      exif: options.exif,
      retry: options.retry,
      decoder: options.decoder,
      onEvent,
      signal: options.signal,
    });
  } finally {
    found.close();
  }
}

/**
 * Opens what `source.locator` says, in this or another process; decodes nothing.
 *
 * @throws {TypeError} for pixels that live in the memory of one process
 */
export async function reopenPixels(locator: PixelLocator): Promise<PixelSource> {
  switch (locator.kind) {
    case "raw":
      return await openRaw(locator.path, locator.split, locator.limit, locator.pad) ?? unknownKind(locator.path);
    case "packed":
      return await openView(locator.view);
    case "sample":
      return await loadSample(locator.split, locator.limit);
    case "memory":
      throw new TypeError(
        "reopenPixels: these pixels are in the memory of another process: open them with a cache folder",
      );
  }
}

async function find(path: string, split: Split, limit?: number, pad?: number): Promise<PixelSource | EncodedDataset> {
  let stat: Deno.FileInfo;
  try {
    stat = await Deno.stat(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new Deno.errors.NotFound(`${path}: no such file or folder: name a folder of images, a list, or an archive`);
  }
  const raw = await openRaw(path, split, limit, pad);
  if (raw) return raw;
  if (stat.isDirectory) return await openFolder(path, split, limit);
  if (isArchiveName(path)) return await openArchive(path, split, limit);
  if (isListName(path)) return await openList(path, limit);
  return unknownKind(path);
}

async function openRaw(path: string, split: Split, limit?: number, pad?: number): Promise<PixelSource | undefined> {
  if ((await Deno.stat(path)).isDirectory) {
    return await openCifar(path, split, limit, pad) ?? await openIdx(path, split, limit, pad);
  }
  if (isIdxImageName(path)) return await openIdx(path, split, limit, pad);
}

function unknownKind(path: string): never {
  throw new RangeError(
    `${path}: not a data set: name a folder of images, a list (.txt, .csv, .tsv, .lst), an archive (.tar, .tar.gz, .zip), ` +
      "a folder of CIFAR-10 or CIFAR-100 (binary version), or MNIST files (…-images-idx3-ubyte, .gz or not)",
  );
}

function checkCount(name: string, value: number | undefined): void {
  if (value === undefined || (Number.isInteger(value) && value > 0)) return;
  throw new RangeError(`openPixels: ${name} is ${value}: use a whole number above 0`);
}
