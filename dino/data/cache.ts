// Decodes a data set once, into packs that later runs and other processes read.

import { createHash } from "node:crypto";
import type { DataEvent, EncodedDataset, EncodedEntry, PixelSource, SkippedImage } from "./dataset.ts";
import { createDecoder, DecodeError } from "./decode.ts";
import { type Decoder, DecoderFailure } from "./decoder.ts";
import { freeBytes } from "./disk_space.ts";
import { pixelsFromList } from "./memory.ts";
import { type PackRecord, PackWriter, readIndexes } from "./packs.ts";
import { openView, writeView } from "./view.ts";

/** Bytes that decoded images may take where nothing else is said: on disk, and without a cache folder in memory. */
export const DEFAULT_DISK_BUDGET = 20e9;
export const DEFAULT_MEMORY_BUDGET = 2e9;

/** An estimate from some images may be off by this factor before the decision made by it is taken back. */
const ESTIMATE_SLACK = 1.25;
const ESTIMATE_IMAGES = 256;
/** Of a disk's free space, what original sizes may take: the run itself wants some too. */
const DISK_SHARE = 0.8;
/** At original size one image may not take more than this: it goes to a device with the rest of its batch. */
const MAX_IMAGE_BYTES = 64e6; // 21 megapixels
const PROGRESS_MS = 50;

/** The size that decoded images are kept at: a number is their shorter side. */
export type ImageSizeChoice = "auto" | "fitting" | "original" | number;

/** How a data set is decoded and kept. */
export interface CacheOptions {
  /** Without it, pixels are kept in memory. */
  directory?: string;
  /**
   * "auto": the original size while it fits the budget, and images are not so large that reading whole batches of them
   * costs more than training (on average above 3·(2·`fallbackSide`)² bytes, or one above 64 MB); else `fallbackSide`.
   * "fitting": the original size if the disk (or the budget) has room for it, else `fallbackSide`.
   */
  size?: ImageSizeChoice;
  /** Shorter side to shrink to when the budget does not suffice. Default 448: two crops of 224. */
  fallbackSide?: number;
  budget?: number;
  exif?: boolean;
  /**
   * Decode images again that failed before; without it they stay skipped while their file is the same. Files that could not
   * be read at all are tried again anyway.
   */
  retry?: boolean;
  decoder?: Decoder;
  onEvent?: (event: DataEvent) => void;
  signal?: AbortSignal;
}

/**
 * Decodes what the cache does not hold yet and opens the whole as pixels. Unreadable images are left out, and reported.
 *
 * Interrupted, it keeps what it has; called again, it goes on from there.
 *
 * @throws {RangeError} if no image can be read, or the pixels do not fit in memory
 */
export async function decodeDataset(dataset: EncodedDataset, options: CacheOptions = {}): Promise<PixelSource> {
  const { onEvent = () => {}, directory } = options;
  const decoder = options.decoder ?? createDecoder();
  const free = directory === undefined ? undefined : await freeBytes(directory);
  const run: Run = {
    dataset,
    options,
    onEvent,
    decoder,
    exif: options.exif ?? true,
    budget: options.budget ?? usualBudget(options, free),
    free: free ?? Infinity,
    known: directory === undefined ? new Map() : await readIndexes(directory),
    reported: new Set(),
  };
  try {
    const choice = await chooseSize(run);
    const source = await decodeAll(run, choice);
    if (source) return source;
    const reason = "at original size the images turned out larger than the first look at them said";
    return (await decodeAll(run, { side: fallbackSide(options), bytes: NaN, reason, final: true }))!;
  } finally {
    if (!options.decoder) await decoder.close();
  }
}

function usualBudget({ directory, size }: CacheOptions, free = Infinity): number {
  if (directory === undefined) return DEFAULT_MEMORY_BUDGET;
  return Math.min(size === "fitting" ? Infinity : DEFAULT_DISK_BUDGET, free * DISK_SHARE);
}

interface Run {
  dataset: EncodedDataset;
  options: CacheOptions;
  onEvent: (event: DataEvent) => void;
  decoder: Decoder;
  exif: boolean;
  budget: number;
  /** Bytes left on the cache's disk. */
  free: number;
  known: Map<string, PackRecord>;
  /** Images already reported as skipped. */
  reported: Set<string>;
}

interface Choice {
  /** Shorter side to shrink to, or null for the original size. */
  side: number | null;
  /** Bytes that this will take, estimated. */
  bytes: number;
  reason: string;
  /** Not to be taken back when the estimate turns out too low. */
  final: boolean;
}

const fallbackSide = (options: CacheOptions) => options.fallbackSide ?? 448;

async function chooseSize(run: Run): Promise<Choice> {
  const { size = "auto" } = run.options, isOpen = size === "auto" || size === "fitting";
  const sizes = await sampleSizes(run);
  const mean = (side: number | null) => {
    let bytes = 0;
    for (const { height, width } of sizes) {
      const scale = side === null ? 1 : Math.min(1, side / Math.min(height, width));
      bytes += Math.round(height * scale) * Math.round(width * scale) * 3;
    }
    return bytes / Math.max(1, sizes.length);
  };
  const choose = (side: number | null, reason: string): Choice => (
    { side, reason, bytes: Math.round(mean(side) * run.dataset.length), final: !isOpen || side !== null }
  );
  if (!isOpen) return choose(size === "original" ? null : size, "as asked for");
  const side = fallbackSide(run.options);
  const original = mean(null), total = original * run.dataset.length;
  if (total > run.budget) {
    return choose(side, `at original size the images would take ${inGB(total)}, more than ${inGB(run.budget)}`);
  }
  if (size === "auto" && original > 3 * (2 * side) ** 2) {
    return choose(
      side,
      `at original size an image takes ${(original / 1e6).toFixed(1)} MB, too much to read in every epoch`,
    );
  }
  return choose(null, `the images fit in ${inGB(run.budget)} at original size`);
}

const inGB = (bytes: number) =>
  bytes < 0.5e9
    ? `${(bytes / 1e6).toFixed(bytes < 10e6 ? 1 : 0)} MB`
    : `${(bytes / 1e9).toFixed(bytes < 10e9 ? 2 : 0)} GB`;

/** Original sizes of some images, evenly spaced: from the cache where it knows, else from their headers. */
async function sampleSizes(run: Run): Promise<{ height: number; width: number }[]> {
  const { dataset, exif, known, decoder } = run;
  const count = Math.min(ESTIMATE_IMAGES, dataset.length);
  let wanted = Array.from({ length: count }, (_, n) => Math.floor(n * dataset.length / count));
  if (dataset.readOrder) wanted = wanted.map((i) => dataset.readOrder![i]);
  const sizes: { height: number; width: number }[] = [];
  await inParallel(decoder.parallel, count, run.options.signal, async (n) => {
    const entry = dataset.entry(wanted[n]);
    const record = known.get(cacheKey(entry, null, exif));
    if (record) {
      if ("pack" in record) sizes.push(record);
      return;
    }
    try {
      sizes.push(await decoder.measure(entry.path ?? await dataset.read(wanted[n]), { exif }));
    } catch (error) {
      if (error instanceof DecoderFailure) throw error;
      // Unreadable: reported when it is to be decoded.
    }
  });
  return sizes;
}

/** Decodes everything at one size; undefined if the choice is not final and turns out wrong. */
async function decodeAll(run: Run, { side, bytes, reason, final }: Choice): Promise<PixelSource | undefined> {
  const { dataset, options, onEvent, decoder, exif, known, budget } = run;
  const { directory, retry = false, signal } = options;
  const keys = Array.from({ length: dataset.length }, (_, i) => cacheKey(dataset.entry(i), side, exif));
  const isKnown = (key: string) => known.has(key) && !(retry && "reason" in known.get(key)!);
  const order = Array.from({ length: dataset.length }, (_, n) => dataset.readOrder?.[n] ?? n)
    .filter((i) => !isKnown(keys[i]));
  onEvent({
    type: "cache",
    directory: directory ?? null,
    shorterSide: side,
    reason,
    bytes,
    budget,
    cached: dataset.length - order.length,
  });
  const wanted = bytes * order.length / dataset.length;
  if (wanted > run.free * ESTIMATE_SLACK) {
    throw new RangeError(
      `${directory}: the decoded images would take about ${inGB(wanted)}, and the disk has ${inGB(run.free)} left: ` +
        moreRoom(options),
    );
  }

  const results: (PackRecord | MemoryImage)[] = new Array(dataset.length);
  const skipped: SkippedImage[] = [...dataset.damage ?? []];
  const report = (id: string, reason: string) => {
    if (!run.reported.has(id)) onEvent({ type: "skipped", id, reason });
    run.reported.add(id);
  };
  for (const { id, reason } of skipped) report(id, reason);
  let done = 0, failed = skipped.length, total = 0, largest = 0, reported = 0;
  const settle = (i: number, result: PackRecord | MemoryImage) => {
    results[i] = result;
    done++;
    if ("reason" in result) {
      failed++;
      report(dataset.entry(i).id, result.reason);
    } else {
      const size = result.height * result.width * 3;
      total += size;
      largest = Math.max(largest, size);
    }
    if (performance.now() - reported < PROGRESS_MS && done < dataset.length) return;
    reported = performance.now();
    onEvent({ type: "progress", done, total: dataset.length, skipped: failed });
  };
  for (const [i, key] of keys.entries()) if (isKnown(key)) settle(i, known.get(key)!);

  const wrong = () =>
    !final && (total > budget * ESTIMATE_SLACK || largest > MAX_IMAGE_BYTES && options.size !== "fitting");
  const writer = directory === undefined ? undefined : new PackWriter(directory);
  try {
    await inParallel(decoder.parallel + 1, order.length, signal, async (n) => {
      if (wrong()) return;
      const i = order[n];
      const image = await decodeOne(run, i, side);
      if (!writer && "pixels" in image && total + image.pixels.length > budget) {
        throw new RangeError(memoryMessage(dataset, budget));
      }
      const kept = writer && !("reason" in image && image.passing);
      settle(i, kept ? await writer.append(keys[i], image) : image);
    });
  } catch (error) {
    throw isFullDisk(error) ? fullDisk(error, options, done) : error;
  } finally {
    await writer?.close().catch((error) => {
      throw isFullDisk(error) ? fullDisk(error, options, done) : error;
    });
  }
  if (wrong()) return;

  const kept = results.flatMap((result, i) => {
    if (!("reason" in result)) return [i];
    skipped.push({ id: dataset.entry(i).id, reason: result.reason });
    return [];
  });
  if (kept.length === 0) {
    const [first] = skipped;
    throw new RangeError(
      `${dataset.name}: none of its ${dataset.length} images can be read (${first.id}: ${first.reason})`,
    );
  }
  const set = {
    name: dataset.name,
    labels: dataset.labels && Int32Array.from(kept, (i) => dataset.labels![i]),
    classNames: dataset.classNames,
    skipped,
  };
  const images = kept.map((i) => ({ ...results[i], id: dataset.entry(i).id, bytes: dataset.entry(i).bytes }));
  if (directory === undefined) return pixelsFromList({ ...set, images: images as MemoryImage[] });
  return await openView(await writeView(directory, { ...set, images: images as never }));
}

type MemoryImage = { pixels: Uint8Array; height: number; width: number; id: string };

/** An image's pixels, or why it has none, and whether that may pass. */
type Decoded = MemoryImage | { reason: string; passing: boolean };

async function decodeOne(run: Run, i: number, side: number | null): Promise<Decoded> {
  const { dataset, decoder, exif } = run;
  const { id, path } = dataset.entry(i);
  try {
    const image = await decoder.decode(path ?? await dataset.read(i), { exif, shorterSide: side ?? undefined });
    return { ...image, id };
  } catch (error) {
    if (error instanceof DecoderFailure) throw error;
    return { reason: (error as Error).message, passing: error instanceof DecodeError && error.passing };
  }
}

/** Path, size, time and how it is decoded, in 22 characters. */
function cacheKey({ key, bytes, mtime }: EncodedEntry, side: number | null, exif: boolean): string {
  const hash = createHash("sha256").update(`${key}\0${bytes}\0${mtime}\0${side ?? "original"}\0${exif}`);
  return hash.digest("base64url").slice(0, 22);
}

/** Runs `work` for 0 … count − 1, some at a time; the first failure, or the signal, stops the rest. */
async function inParallel(
  parallel: number,
  count: number,
  signal: AbortSignal | undefined,
  work: (n: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  let failed = false;
  const runners = Array.from({ length: Math.min(parallel, count) }, async () => {
    while (next < count && !failed) {
      signal?.throwIfAborted();
      await work(next++).catch((error) => {
        failed = true;
        throw error;
      });
    }
  });
  const results = await Promise.allSettled(runners);
  for (const result of results) if (result.status === "rejected") throw result.reason;
}

const isFullDisk = (error: unknown) =>
  error instanceof Error &&
  ((error as { code?: string }).code === "ENOSPC" || /ENOSPC|no space left/i.test(error.message));

const fullDisk = (error: unknown, options: CacheOptions, done: number) =>
  new Error(`${options.directory}: the disk is full after ${done} decoded images: ${moreRoom(options)}`, {
    cause: error,
  });

/** What whoever chose a size may do; evaluations, which need "original" or "fitting", have no flag for it. */
const moreRoom = ({ size = "auto" }: CacheOptions) =>
  size === "fitting" || size === "original"
    ? "make room, or use --cache-dir on another disk"
    : "use a smaller --cache-size, or --cache-dir on another disk";

const memoryMessage = (dataset: EncodedDataset, budget: number) =>
  `${dataset.name}: its pixels take more than ${budget} bytes of memory: ` +
  "give a cache folder, a larger budget, or a number as the cache size";
