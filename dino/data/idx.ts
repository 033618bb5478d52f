// Reads IDX files (MNIST, Fashion-MNIST, EMNIST): a big-endian header, then one byte a value; gzipped or not.

import { createGunzip } from "node:zlib";
import { Readable } from "node:stream";
import type { PixelLocator, PixelSource, Split } from "./dataset.ts";
import { pixelsFromMemory } from "./memory.ts";

/** Larger files are no data set of this format: a gzip header can promise anything. */
const MAX_BYTES = 4 * 2 ** 30;

/** An IDX file's contents: [dims…] bytes. */
export interface IdxArray {
  dims: number[];
  data: Uint8Array<ArrayBuffer>;
}

/** Whether a file's name is one that IDX images go by. */
export const isIdxImageName = (name: string): boolean => /images?[-._]idx[34][-._]ubyte(\.gz)?$/i.test(name);

const isOfHalf = (name: string, split: Split) => /t10k|test|val/i.test(name) === (split === "test");

/** Whether a folder holds IDX images of that half. */
export async function hasIdxHalf(folder: string, split: Split): Promise<boolean> {
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    if (!isDirectory && isIdxImageName(name) && isOfHalf(name, split)) return true;
  }
  return false;
}

/**
 * Opens a folder that holds IDX images, or such a file itself; undefined where it is neither. Labels are found beside.
 *
 * @throws {RangeError} if the folder has IDX images but none of the split
 * @throws {SyntaxError} if a file is not IDX, is cut off, or does not fit the other
 */
export async function openIdx(
  path: string,
  split: Split,
  limit = Infinity,
  pad?: number,
): Promise<PixelSource | undefined> {
  const isFile = (await Deno.stat(path)).isFile;
  const directory = isFile ? path.slice(0, path.lastIndexOf("/") + 1) || "./" : path + "/";
  const names: string[] = [];
  for await (const entry of Deno.readDir(directory)) if (!entry.isDirectory) names.push(entry.name);
  names.sort();
  let images = isFile ? path.slice(path.lastIndexOf("/") + 1) : undefined;
  if (images === undefined) {
    const candidates = names.filter(isIdxImageName);
    if (candidates.length === 0) return;
    images = candidates.find((name) => isOfHalf(name, split));
    if (images === undefined) {
      throw new RangeError(`${path}: IDX images without the ${split} split: there is only ${candidates.join(", ")}`);
    }
  }
  const stem = (name: string) => name.replace(/\.gz$/i, "").replace(/images?([-._])idx[34]/i, "labels$1idx1");
  const labels = names.find((name) => /labels?[-._]idx1/i.test(name) && stem(name) === stem(images));
  const location: PixelLocator = {
    kind: "raw",
    path: await Deno.realPath(path),
    split,
    limit: limit === Infinity ? undefined : limit,
    pad,
  };
  return idxPixels({
    name: `${images.replace(/[-._]?images?[-._].*$/i, "") || images} (IDX)`,
    images: await readIdx(await Deno.readFile(directory + images), directory + images),
    labels: labels === undefined
      ? undefined
      : await readIdx(await Deno.readFile(directory + labels), directory + labels),
    limit,
    pad,
    locator: location,
  });
}

/**
 * IDX images [n, h, w] or [n, h, w, 3] with their labels [n] as a source.
 *
 * @throws {SyntaxError} if the shapes do not fit
 */
export function idxPixels(parts: {
  name: string;
  images: IdxArray;
  labels?: IdxArray;
  limit?: number;
  pad?: number;
  classNames?: readonly string[];
  locator?: PixelLocator;
}): PixelSource {
  const { name, images, labels, pad, locator } = parts;
  const [count, height, width, channels = 1] = images.dims;
  if (images.dims.length < 3 || !(channels === 1 || channels === 3) || count * height * width === 0) {
    throw new SyntaxError(
      `${name}: images of shape [${images.dims}]: expected [n, height, width] or [n, height, width, 3]`,
    );
  }
  if (labels && (labels.dims.length !== 1 || labels.dims[0] !== count)) {
    throw new SyntaxError(
      `${name}: ${count} images but labels of shape [${labels.dims}]: the two files do not belong together`,
    );
  }
  const length = Math.min(count, parts.limit ?? Infinity);
  // The number of classes comes from all labels, so that it does not depend on the limit.
  const classes = labels ? labels.data.reduce((max, label) => Math.max(max, label + 1), 0) : 0;
  return pixelsFromMemory({
    name,
    height,
    width,
    channels,
    data: images.data.subarray(0, length * height * width * channels),
    labels: labels && Int32Array.from(labels.data.subarray(0, length)),
    classNames: labels && (parts.classNames ?? Array.from({ length: classes }, (_, i) => String(i))),
    pad,
    locator,
  });
}

/**
 * Parses an IDX file of unsigned bytes, unpacking gzip where it is.
 *
 * @param name for messages
 * @throws {SyntaxError} naming the file and what is wrong with it
 */
export async function readIdx(bytes: Uint8Array<ArrayBuffer>, name: string): Promise<IdxArray> {
  const plain = bytes[0] === 0x1f && bytes[1] === 0x8b ? await gunzip(bytes, name) : bytes;
  const view = new DataView(plain.buffer, plain.byteOffset, plain.byteLength);
  const dimensions = plain[3];
  if (plain.length < 8 || plain[0] !== 0 || plain[1] !== 0 || plain[2] !== 8 || dimensions < 1 || dimensions > 4) {
    throw new SyntaxError(`${name}: not an IDX file of unsigned bytes (first bytes ${[...plain.subarray(0, 4)]})`);
  }
  const start = 4 + 4 * dimensions;
  if (plain.length < start) throw new SyntaxError(`${name}: cut off in its header, at byte ${plain.length}`);
  const dims = Array.from({ length: dimensions }, (_, i) => view.getUint32(4 + 4 * i));
  const expected = start + dims.reduce((product, dim) => product * dim, 1);
  if (plain.length !== expected) {
    throw new SyntaxError(`${name}: ${plain.length} bytes, but shape [${dims}] needs ${expected}: get the file again`);
  }
  return { dims, data: plain.subarray(start) };
}

async function gunzip(bytes: Uint8Array, name: string): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array[] = [];
  let size = 0;
  try {
    for await (const part of Readable.from([bytes]).pipe(createGunzip())) {
      size += part.length;
      if (size > MAX_BYTES) throw new RangeError(`unpacks to more than ${MAX_BYTES} bytes`);
      parts.push(part);
    }
  } catch (error) {
    throw new SyntaxError(`${name}: cannot be unpacked (${(error as Error).message}): get the file again`);
  }
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
