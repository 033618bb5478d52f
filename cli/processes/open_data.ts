// Opens images for a compute process: decodes them in other processes, into a cache that it can read.

import { pathExists } from "../../dino/path_exists.ts";
import { type OpenOptions, openPixels } from "../../dino/data/open.ts";
import { loadSample } from "../../dino/data/sample.ts";
import type { DataEvent, PixelSource, Split } from "../../dino/data/dataset.ts";
import { DecoderPool } from "./decoder_pool.ts";
import { checkedBinary } from "./launch.ts";

/** Where images are and how they are read. */
export interface DataChoice {
  /** Path of the images; null for the embedded sample. */
  readonly data: string | null;
  /** Held-out images; null for the sample's test half, where that is trained on. */
  readonly val: string | null;
  readonly limit: number | null;
  readonly numWorkers: number | null;
  readonly cacheDir: string;
  /** 0: the original size; null: choose. */
  readonly cacheSize: number | null;
  readonly pad: number | null;
  readonly exif: boolean;
  /** Largest crop, in pixels. */
  readonly crop: number;
}

/** Training images, and those held out. */
export interface OpenedData {
  readonly data: PixelSource;
  readonly val?: PixelSource;
}

/**
 * Opens both halves. A cache folder that was made for nothing is removed again.
 *
 * @param checkFound is told how many images there are before any is decoded, and may throw
 */
export async function openData(
  choice: DataChoice,
  onEvent: (event: DataEvent) => void,
  signal: AbortSignal,
  checkFound: (images: number) => void = () => {},
): Promise<OpenedData> {
  const { data: path, val: valPath, limit, cacheSize } = choice;
  if (path === null && valPath !== null) {
    throw new RangeError(`--val ${valPath} without --data: the embedded sample brings its own: give --data too`);
  }
  if (path === null) {
    const data = await loadSample("train", limit ?? undefined);
    checkFound(data.length);
    return { data, val: await loadSample("test") };
  }
  const processes = choice.numWorkers ?? Math.max(1, Math.min(16, navigator.hardwareConcurrency - 1));
  const decoder = new DecoderPool({ processes, executable: checkedBinary() });
  const isNew = !await pathExists(choice.cacheDir);
  const open = (from: string, split: Split, more: Partial<OpenOptions>) =>
    openPixels(from, {
      split,
      exif: choice.exif,
      pad: choice.pad ?? undefined,
      cacheDirectory: choice.cacheDir,
      cacheSize: cacheSize === null ? "auto" : cacheSize === 0 ? "original" : cacheSize,
      crop: choice.crop,
      decoder,
      signal,
      ...more,
    });
  try {
    const data = await open(path, "train", {
      limit: limit ?? undefined,
      onEvent: (event) => {
        onEvent(event);
        if (event.type === "found") checkFound(event.images);
      },
    });
    const val = valPath === null ? undefined : await open(valPath, "test", { onEvent });
    return { data, val };
  } catch (error) {
    if (isNew && !signal.aborted) await Deno.remove(choice.cacheDir, { recursive: true }).catch(() => {});
    throw error;
  } finally {
    await decoder.close();
  }
}
