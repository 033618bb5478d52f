// A view: which images of the packs make up a data set, in which order; all that a training process has to open.

import { pathExists } from "../path_exists.ts";
import { createHash } from "node:crypto";
import { closeSync, openSync, readSync } from "node:fs";
import { crc32 } from "node:zlib";
import { writeFileAtomically } from "../../models/weights/atomic_file.ts";
import type { PixelSource, SkippedImage } from "./dataset.ts";
import { checkedIndex, fingerprintOf, layOutBatch } from "./memory.ts";
import type { PackedImage } from "./packs.ts";

/** Reading is synchronous and quick while the system has the file in memory; longer than this, others get a turn. */
const TURN_MS = 4;

/** A data set after decoding. */
export interface PackedImages {
  name: string;
  images: readonly (PackedImage & { id: string; bytes: number })[];
  labels?: Int32Array<ArrayBuffer>;
  classNames?: readonly string[];
  skipped: readonly SkippedImage[];
}

interface ViewHeader {
  format: "denodino view";
  version: 1;
  name: string;
  length: number;
  fingerprint: string;
  packs: string[];
  hasLabels: boolean;
  classNames?: readonly string[];
  skipped: readonly SkippedImage[];
}

/**
 * Writes a view into the cache folder and returns its path; a view that says the same is left as it is.
 *
 * Layout: a header in JSON, a line end, then float64 offsets, int32 heights, widths, packs, CRCs and labels (where there
 * are any), then the ids in UTF-8, each with a zero byte behind it, then CRC-32 of everything before it.
 */
export async function writeView(directory: string, set: PackedImages): Promise<string> {
  const { name, images, labels, classNames, skipped } = set;
  const packs = [...new Set(images.map(({ pack }) => pack))];
  const packIndex = new Map(packs.map((pack, i) => [pack, i]));
  const fingerprint = fingerprintOf("", images.length, labels, (hash) => {
    for (const { id, bytes, height, width } of images) hash.update(`${id}\0${bytes} ${height} ${width}\0`);
  });
  const header: ViewHeader = {
    format: "denodino view",
    version: 1,
    name,
    length: images.length,
    fingerprint,
    packs,
    hasLabels: labels !== undefined,
    classNames,
    skipped,
  };
  const int32 = (value: (image: PackedImages["images"][number]) => number) => bytesOf(Int32Array.from(images, value));
  const parts = [
    new TextEncoder().encode(JSON.stringify(header) + "\n"),
    bytesOf(Float64Array.from(images, ({ offset }) => offset)),
    int32(({ height }) => height),
    int32(({ width }) => width),
    int32(({ pack }) => packIndex.get(pack)!),
    int32(({ crc }) => crc),
    ...labels ? [bytesOf(labels)] : [],
    new TextEncoder().encode(images.map(({ id }) => id + "\0").join("")),
  ];
  const hash = createHash("sha256");
  let crc = 0;
  for (const part of parts) {
    hash.update(part);
    crc = crc32(part, crc);
  }
  const path = `${directory}/${fingerprint}-${hash.digest("hex").slice(0, 8)}.view`;
  if (!await pathExists(path)) {
    await Deno.mkdir(directory, { recursive: true });
    await writeFileAtomically(path, async (write) => {
      for (const part of parts) await write(part);
      await write(bytesOf(Uint32Array.of(crc)));
    });
  }
  return await Deno.realPath(path);
}

/**
 * Opens a view: its packs are read by position, an image's checksum is verified the first time it is read.
 *
 * @throws {SyntaxError} if the view is damaged or of another version
 * @throws {Deno.errors.NotFound} if it, or a pack it names, is gone
 */
export async function openView(path: string): Promise<PixelSource> {
  const { header, offsets, heights, widths, packs, crcs, labels, ids } = parseView(await Deno.readFile(path), path);
  const directory = path.replace(/[^/\\]*$/, "");
  const files = new Map<number, number>(); // pack → file descriptor, opened when first read
  const verified = new Uint8Array(header.length);
  const { name, length } = header;
  const fileOf = (pack: number) => {
    let file = files.get(pack);
    if (file === undefined) files.set(pack, file = openSync(directory + header.packs[pack], "r"));
    return file;
  };
  const readImage = (i: number, pixels: Uint8Array<ArrayBuffer>) => {
    const file = fileOf(packs[i]);
    let done = 0;
    while (done < pixels.length) {
      const n = readSync(file, pixels, done, pixels.length - done, offsets[i] + done);
      if (n === 0) break;
      done += n;
    }
    if (done === pixels.length && (verified[i] || crc32(pixels) === crcs[i] >>> 0)) verified[i] = 1;
    else throw setAside(directory, header.packs[packs[i]], ids[i]);
  };
  const source: PixelSource = {
    name,
    length,
    labels,
    classNames: header.classNames,
    fingerprint: header.fingerprint,
    skipped: header.skipped,
    locator: { kind: "packed", view: path },
    id: (i) => ids[checkedIndex(i, length, name)],
    size: (i) => ({ height: heights[checkedIndex(i, length, name)], width: widths[i] }),
    async readBatch(indices, into) {
      const batch = layOutBatch(source, indices, into);
      const order = Array.from({ length: indices.length }, (_, n) => n)
        .sort((a, b) => packs[indices[a]] - packs[indices[b]] || offsets[indices[a]] - offsets[indices[b]]);
      let turn = performance.now();
      for (const n of order) {
        const [offset, height, width] = batch.table.subarray(3 * n, 3 * n + 3);
        readImage(indices[n], batch.pixels.subarray(offset, offset + height * width * 3));
        if (performance.now() - turn < TURN_MS) continue;
        await new Promise((resolve) => setTimeout(resolve, 0));
        turn = performance.now();
      }
      return batch;
    },
    close() {
      for (const file of files.values()) closeSync(file);
      files.clear();
    },
  };
  return source;
}

/** Takes a damaged pack out of the cache, so that the next start decodes its images again. */
function setAside(directory: string, pack: string, id: string): Error {
  const index = directory + pack.replace(/pix$/, "idx");
  let fix = "start again: its images will be decoded once more";
  try {
    Deno.renameSync(index, `${index}.damaged`);
  } catch {
    fix = `remove ${index} and start again`; // no right to write, or done already
  }
  return new Error(`${directory}${pack}: the pixels of ${id} are damaged on disk: ${fix}`);
}

function parseView(bytes: Uint8Array<ArrayBuffer>, path: string) {
  const damaged = (what: string) => new SyntaxError(`${path}: ${what}: remove it and start again`);
  const end = bytes.length - 4;
  if (
    end < 0 || new DataView(bytes.buffer, bytes.byteOffset + end).getUint32(0, true) !== crc32(bytes.subarray(0, end))
  ) {
    throw damaged("this view of the cache is cut off or damaged");
  }
  const line = bytes.indexOf(10);
  const header: ViewHeader = JSON.parse(new TextDecoder().decode(bytes.subarray(0, line)));
  if (header.format !== "denodino view" || header.version !== 1) throw damaged("not a view of this version");
  let at = line + 1;
  const take = (count: number) => bytes.slice(at, at += count).buffer;
  const n = header.length;
  return {
    header,
    offsets: new Float64Array(take(8 * n)),
    heights: new Int32Array(take(4 * n)),
    widths: new Int32Array(take(4 * n)),
    packs: new Int32Array(take(4 * n)),
    crcs: new Int32Array(take(4 * n)),
    labels: header.hasLabels ? new Int32Array(take(4 * n)) : undefined,
    ids: new TextDecoder().decode(take(end - at)).split("\0"),
  };
}

function bytesOf(array: Int32Array | Uint32Array | Float64Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(array.buffer as ArrayBuffer, array.byteOffset, array.byteLength);
}
