// A few big append-only files of decoded pixels with an index each, safe to kill at any moment and to share.

import { crc32 } from "node:zlib";

/** A pack is closed and the next begun at this size, so that no file system's limit is met. */
const PACK_BYTES = 8 * 2 ** 30;
/** Index lines are written only after their pixels reached the disk: at most this much is lost when killed. */
const FLUSH_BYTES = 64 * 2 ** 20;
const FLUSH_MS = 5_000;

const HEADER = "denodino pack 1";

/** Where an image's pixels lie. */
export interface PackedImage {
  pack: string;
  offset: number;
  height: number;
  width: number;
  /** CRC-32 of the pixels. */
  crc: number;
}

/** What is known of a key: its pixels, or why it has none. */
export type PackRecord = PackedImage | { reason: string };

/**
 * Reads every index in a cache folder: key → pixels or reason. Lines cut off or damaged are dropped, and so are those
 * whose pixels are not (all) there.
 */
export async function readIndexes(directory: string): Promise<Map<string, PackRecord>> {
  const records = new Map<string, PackRecord>();
  const names: string[] = [];
  try {
    for await (const entry of Deno.readDir(directory)) if (/^pack-.*\.idx$/.test(entry.name)) names.push(entry.name);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  for (const name of names.sort()) {
    const pack = name.replace(/idx$/, "pix");
    const size = await Deno.stat(`${directory}/${pack}`).then((stat) => stat.size, () => 0);
    const lines = (await Deno.readTextFile(`${directory}/${name}`)).split("\n");
    if (lines[0] !== HEADER) continue; // of another version
    for (let i = 1; i < lines.length - 1; i++) { // the last one has no line end: cut off, or empty
      const record = parseLine(lines[i]);
      if (!record) continue;
      const [key, offset, height, width, crc] = record;
      if (typeof offset === "string") records.set(key, { reason: offset });
      else if (offset + height * width * 3 <= size) records.set(key, { pack, offset, height, width, crc });
    }
  }
  return records;
}

type Line = [key: string, offset: number, height: number, width: number, crc: number];
type FailureLine = [key: string, reason: string, height: 0, width: 0, crc: 0];

function parseLine(line: string): Line | FailureLine | undefined {
  if (crcText(line.slice(9)) !== line.slice(0, 8)) return;
  return JSON.parse(line.slice(9));
}

const crcText = (text: string) => crc32(text).toString(16).padStart(8, "0");

/** Appends decoded images to a pack of its own, so that any number of writers share a folder. */
export class PackWriter {
  #name = "";
  #pixels?: Deno.FsFile;
  #index?: Deno.FsFile;
  #offset = 0;
  #pending = ""; // index lines whose pixels may not have reached the disk
  #pendingBytes = 0;
  #flushed = performance.now();
  #last: Promise<unknown> = Promise.resolve(); // appends take turns

  constructor(readonly directory: string) {}

  /** Appends one image's pixels, or the reason why it has none. */
  append(
    key: string,
    image: { pixels: Uint8Array; height: number; width: number } | { reason: string },
  ): Promise<PackRecord> {
    const turn = this.#last.then(() => this.#append(key, image));
    this.#last = turn.catch(() => {});
    return turn;
  }

  /** Waits for what was appended, and makes it last. */
  async close(): Promise<void> {
    await this.#last;
    await this.#closePack();
  }

  async #append(key: string, image: Parameters<PackWriter["append"]>[1]): Promise<PackRecord> {
    if (!this.#pixels || this.#offset >= PACK_BYTES) await this.#openPack();
    let line: Line | FailureLine, record: PackRecord;
    if ("reason" in image) {
      line = [key, image.reason, 0, 0, 0];
      record = { reason: image.reason };
    } else {
      const { pixels, height, width } = image;
      const crc = crc32(pixels);
      for (let done = 0; done < pixels.length;) done += await this.#pixels!.write(pixels.subarray(done));
      line = [key, this.#offset, height, width, crc];
      record = { pack: `${this.#name}.pix`, offset: this.#offset, height, width, crc };
      this.#offset += pixels.length;
      this.#pendingBytes += pixels.length;
    }
    const text = JSON.stringify(line);
    this.#pending += `${crcText(text)} ${text}\n`;
    if (this.#pendingBytes >= FLUSH_BYTES || performance.now() - this.#flushed >= FLUSH_MS) await this.#flush();
    return record;
  }

  async #flush(): Promise<void> {
    this.#flushed = performance.now();
    if (this.#pending === "") return;
    if (this.#pendingBytes > 0) await this.#pixels!.syncData();
    const lines = new TextEncoder().encode(this.#pending);
    for (let done = 0; done < lines.length;) done += await this.#index!.write(lines.subarray(done));
    this.#pending = "";
    this.#pendingBytes = 0;
  }

  async #openPack(): Promise<void> {
    await this.#closePack();
    await Deno.mkdir(this.directory, { recursive: true });
    const random = crypto.getRandomValues(new Uint32Array(1))[0].toString(36);
    this.#name = `pack-${Date.now().toString(36)}-${random}`;
    const path = `${this.directory}/${this.#name}`;
    this.#pixels = await Deno.open(`${path}.pix`, { write: true, createNew: true });
    this.#index = await Deno.open(`${path}.idx`, { write: true, createNew: true });
    this.#offset = 0;
    this.#pending = HEADER + "\n";
    await this.#flush();
  }

  async #closePack(): Promise<void> {
    try {
      if (this.#pixels) await this.#flush();
      await this.#index?.syncData();
    } finally {
      this.#pixels?.close();
      this.#index?.close();
      this.#pixels = this.#index = undefined;
    }
  }
}
