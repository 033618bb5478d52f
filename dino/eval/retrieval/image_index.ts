// An index of images: their features, names and thumbnails in one file, bound to the weights that made it.

import { createHash } from "node:crypto";
import type { Raster } from "../../../models/image/raster.ts";
import { emptyRaster } from "../../../models/image/raster.ts";
import { resize } from "../../../models/image/resample.ts";
import {
  openFileSourceIfAny,
  readFloats,
  readSafetensorsHeader,
  readTensorBytes,
  writeSafetensors,
} from "../../../models/weights/safetensors.ts";
import type { LoadedWeights } from "../../load_weights.ts";
import type { Neighbours } from "../knn/knn.ts";

/** Side of the pictures kept for contact sheets, in pixels. */
export const THUMBNAIL_SIDE = 96;

/** What an index holds. */
export interface ImageIndex {
  readonly names: readonly string[];
  readonly dim: number;
  /** [n, dim], rows of length 1. */
  readonly features: Float32Array;
  /** [n, side, side, 3] */
  readonly thumbnails: Uint8Array;
  /** Crop the features were taken from, in pixels. */
  readonly cropSize: number;
  /** Of the weights. */
  readonly fingerprint: string;
  /** Where the weights were. */
  readonly weights: string;
}

const FORMAT = "denodino image index";

/** Tells one backbone from another: a hash of its parameters. */
export function weightsFingerprint({ weights }: Pick<LoadedWeights, "weights">): string {
  const hash = createHash("sha256");
  for (const name of [...weights.keys()].filter((name) => name.startsWith("backbone.")).sort()) {
    const { data } = weights.get(name)!;
    hash.update(`${name}\0`).update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }
  return hash.digest("hex").slice(0, 16);
}

/** Writes an index, whole or not at all. */
export async function writeIndex(path: string, index: ImageIndex): Promise<void> {
  const { names, dim, features, thumbnails, cropSize, fingerprint, weights } = index;
  const n = names.length, side = THUMBNAIL_SIDE;
  const bytes = new Uint8Array(features.buffer, features.byteOffset, features.byteLength);
  await writeSafetensors(
    path,
    [
      { name: "features", dtype: "F32", shape: [n, dim], bytes: () => bytes },
      { name: "thumbnails", dtype: "U8", shape: [n, side, side, 3], bytes: () => thumbnails },
    ],
    { format: FORMAT, names: JSON.stringify(names), cropSize: String(cropSize), fingerprint, weights },
  );
}

/**
 * Reads an index.
 *
 * @throws {RangeError} if there is no such file
 * @throws {SyntaxError} if it is damaged, or something else
 */
export async function readIndex(path: string): Promise<ImageIndex> {
  const source = await openFileSourceIfAny(path);
  if (!source) throw new RangeError(`${path}: there is no such index: build it with --data DIR --weights WEIGHTS`);
  try {
    const { metadata, tensors } = await readSafetensorsHeader(source);
    const features = tensors.get("features"), thumbnails = tensors.get("thumbnails");
    if (metadata.format !== FORMAT || !features || !thumbnails) throw new SyntaxError(`${path}: is no index of images`);
    const names = JSON.parse(metadata.names) as string[];
    if (names.length !== features.shape[0] || thumbnails.shape[1] !== THUMBNAIL_SIDE) {
      throw new SyntaxError(`${path}: is an index of another version: build it again`);
    }
    return {
      names,
      dim: features.shape[1],
      features: await readFloats(source, features),
      thumbnails: await readTensorBytes(source, thumbnails),
      cropSize: Number(metadata.cropSize),
      fingerprint: metadata.fingerprint,
      weights: metadata.weights,
    };
  } finally {
    source.close!();
  }
}

/** A picture within a square, on white, as contact sheets show it. [side, side, 3] */
export function squareThumbnail(image: Raster, side: number = THUMBNAIL_SIDE): Uint8Array {
  const longer = Math.max(image.height, image.width);
  const height = Math.max(1, Math.round(side * image.height / longer));
  const width = Math.max(1, Math.round(side * image.width / longer));
  const small = resize(image, height, width, "bicubic");
  const { data } = emptyRaster(side, side);
  data.fill(255);
  const top = (side - height) >> 1, left = (side - width) >> 1;
  for (let y = 0; y < height; y++) {
    data.set(small.data.subarray(y * width * 3, (y + 1) * width * 3), ((top + y) * side + left) * 3);
  }
  return data;
}

/** Two images that look alike. */
export interface NearDuplicate {
  readonly first: number;
  readonly second: number;
  readonly similarity: number;
}

/**
 * Pairs at least so similar, the most similar first.
 *
 * @param neighbours of every image among all, itself included
 */
export function nearDuplicates({ k, similarities, indices }: Neighbours, threshold: number): NearDuplicate[] {
  const pairs = new Map<string, NearDuplicate>();
  for (let i = 0; i < indices.length; i++) {
    const a = Math.floor(i / k), b = indices[i];
    if (a === b || similarities[i] < threshold) continue;
    const [first, second] = a < b ? [a, b] : [b, a];
    pairs.set(`${first} ${second}`, { first, second, similarity: similarities[i] });
  }
  return [...pairs.values()].sort((a, b) => b.similarity - a.similarity || a.first - b.first);
}

/** Rows of pictures on white, [rows][columns] of side × side; the first of each stands apart: what was asked for. */
export function contactSheet(rows: readonly (readonly Uint8Array[])[], side: number = THUMBNAIL_SIDE): Raster {
  const gap = 4, apart = 4 * gap, columns = Math.max(...rows.map((row) => row.length));
  const width = columns * (side + gap) + gap + (columns > 1 ? apart : 0);
  const sheet = emptyRaster(rows.length * (side + gap) + gap, width);
  sheet.data.fill(255);
  rows.forEach((row, r) =>
    row.forEach((picture, c) => {
      for (let y = 0; y < side; y++) {
        const left = gap + c * (side + gap) + (c > 0 ? apart : 0);
        const to = ((gap + r * (side + gap) + y) * sheet.width + left) * 3;
        sheet.data.set(picture.subarray(y * side * 3, (y + 1) * side * 3), to);
      }
    })
  );
  if (columns > 1) {
    const middle = gap + side + (gap + apart) / 2;
    for (let y = gap; y < sheet.height - gap; y++) {
      const at = 3 * (y * width + middle);
      sheet.data.fill(176, at, at + 6); // a grey line, two pixels wide
    }
  }
  return sheet;
}
