// Pixels that lie in memory as a source of batches: CIFAR and MNIST as they are, or images decoded without a disk cache.

import { createHash } from "node:crypto";
import type { ImageSize, PixelBatch, PixelLocator, PixelSource, SkippedImage } from "./dataset.ts";

/** Images of one size in one buffer. */
export interface MemoryImages {
  /** For people: where they come from. */
  name: string;
  /** Rows of an image. */
  height: number;
  /** Columns of an image. */
  width: number;
  /** 1 (grey, repeated to RGB when read) or 3. */
  channels: 1 | 3;
  /** [n, height, width, channels] */
  data: Uint8Array<ArrayBuffer>;
  /** Class of each image. */
  labels?: Int32Array<ArrayBuffer>;
  /** Name of each class. */
  classNames?: readonly string[];
  /** Default: the name and the index. */
  id?: (i: number) => string;
  /** Surround smaller images with zeros up to this height and width, centred. */
  pad?: number;
  /** Where another process finds them. Default: nowhere. */
  locator?: PixelLocator;
}

/**
 * Images of one size in memory, as a source.
 *
 * @throws {RangeError} if data or labels do not have the length that the sizes imply
 * @throws {TypeError} if data are no bytes, or not of 1 or 3 channels
 */
export function pixelsFromMemory(images: MemoryImages): PixelSource {
  const { name, height, width, channels, data, labels, classNames, pad = 0 } = images;
  if (!(data instanceof Uint8Array) || (channels !== 1 && channels !== 3)) {
    throw new TypeError(
      `pixelsFromMemory: wants bytes (a Uint8Array) of 1 or 3 channels, not ${
        (data as unknown)?.constructor?.name ?? data
      } of ${channels}`,
    );
  }
  const bytes = height * width * channels;
  const length = data.length / bytes;
  if (!Number.isInteger(length)) {
    throw new RangeError(
      `pixelsFromMemory: ${data.length} bytes are not a whole number of ${height}×${width}×${channels}`,
    );
  }
  if (labels && labels.length !== length) {
    throw new RangeError(`pixelsFromMemory: ${labels.length} labels for ${length} images`);
  }
  const id = images.id ?? ((i: number) => `${name} ${i}`);
  const H = Math.max(height, pad), W = Math.max(width, pad);
  const top = (H - height) >> 1, left = (W - width) >> 1;
  const source: PixelSource = {
    name,
    length,
    labels,
    classNames,
    fingerprint: fingerprintOf(name, length, labels, (hash) => hash.update(data).update(`${H}×${W}`)),
    skipped: [],
    locator: images.locator ?? { kind: "memory" },
    id: (i) => id(checkedIndex(i, length, name)),
    size: (i) => (checkedIndex(i, length, name), { height: H, width: W }),
    readBatch: (indices, into) =>
      Promise.resolve().then(() =>
        fillBatch(source, indices, into, (i, pixels) => {
          if (H !== height || W !== width) pixels.fill(0);
          for (let y = 0; y < height; y++) {
            const from = i * bytes + y * width * channels;
            const row = data.subarray(from, from + width * channels);
            const to = ((y + top) * W + left) * 3;
            if (channels === 3) pixels.set(row, to);
            else for (let x = 0; x < width; x++) pixels.fill(row[x], to + 3 * x, to + 3 * x + 3);
          }
        })
      ),
    close: () => {},
  };
  return source;
}

/** Images of any sizes, each [height, width, 3] in a buffer of its own, as a source. */
export function pixelsFromList(list: {
  name: string;
  images: readonly (ImageSize & { pixels: Uint8Array; id: string })[];
  labels?: Int32Array<ArrayBuffer>;
  classNames?: readonly string[];
  skipped?: readonly SkippedImage[];
}): PixelSource {
  const { name, images, labels, classNames, skipped = [] } = list;
  const image = (i: number) => images[checkedIndex(i, images.length, name)];
  const source: PixelSource = {
    name,
    length: images.length,
    labels,
    classNames,
    fingerprint: fingerprintOf(name, images.length, labels, (hash) => {
      for (const { id, height, width } of images) hash.update(`${id}\0${height}×${width}\0`);
    }),
    skipped,
    locator: { kind: "memory" },
    id: (i) => image(i).id,
    size: (i) => ({ height: image(i).height, width: image(i).width }),
    readBatch: (indices, into) =>
      Promise.resolve().then(() => fillBatch(source, indices, into, (i, pixels) => pixels.set(image(i).pixels))),
    close: () => {},
  };
  return source;
}

/** Lays out a batch and lets `write` fill each image's place: offsets are multiples of 4, gaps are zero. */
export function fillBatch(
  source: PixelSource,
  indices: ArrayLike<number>,
  into: Uint8Array<ArrayBuffer> | undefined,
  write: (i: number, pixels: Uint8Array<ArrayBuffer>) => void,
): PixelBatch {
  const { pixels, table } = layOutBatch(source, indices, into);
  for (let n = 0; n < indices.length; n++) {
    const [offset, height, width] = table.subarray(3 * n, 3 * n + 3);
    write(indices[n], pixels.subarray(offset, offset + height * width * 3));
  }
  return { pixels, table };
}

/**
 * The table of a batch and a buffer of its size (`into` where that suffices), not yet filled.
 *
 * @throws {RangeError} if the batch exceeds 2 GiB
 */
export function layOutBatch(
  source: PixelSource,
  indices: ArrayLike<number>,
  into?: Uint8Array<ArrayBuffer>,
): PixelBatch {
  const table = new Int32Array(indices.length * 3);
  let bytes = 0;
  for (let n = 0; n < indices.length; n++) {
    const { height, width } = source.size(indices[n]);
    table.set([bytes, height, width], 3 * n);
    bytes += (height * width * 3 + 3) & ~3;
    if (bytes >= 2 ** 31) {
      throw new RangeError(
        `${source.name}: ${indices.length} images of about ${height}×${width} exceed 2 GiB in one batch: ` +
          "use a smaller batch, or in training a smaller --cache-size",
      );
    }
  }
  const pixels = into && into.length >= bytes ? into.subarray(0, bytes) : new Uint8Array(bytes);
  return { pixels, table };
}

/**
 * `i` itself.
 *
 * @throws {RangeError} if there is no image `i`
 */
export function checkedIndex(i: number, length: number, name: string): number {
  if (!(Number.isInteger(i) && i >= 0 && i < length)) throw new RangeError(`${name}: no image ${i}, of ${length}`);
  return i;
}

/** A short hash over whatever makes a source what it is. */
export function fingerprintOf(
  name: string,
  length: number,
  labels: Int32Array | undefined,
  add: (hash: ReturnType<typeof createHash>) => unknown,
): string {
  const hash = createHash("sha256").update(`${name}\0${length}\0`);
  if (labels) hash.update(new Uint8Array(labels.buffer, labels.byteOffset, labels.byteLength));
  add(hash);
  return hash.digest("hex").slice(0, 16);
}
