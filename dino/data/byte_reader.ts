// Reads ranges of a file, or of what a gzip file unpacks to, without holding either in memory.

import { createReadStream, readSync } from "node:fs";
import { open as openNode } from "node:fs/promises";
import { createGunzip } from "node:zlib";

/** Bytes at a position. */
export interface ByteReader {
  /** Total bytes; unknown (Infinity) for compressed files. */
  readonly length: number;
  /** Up to `count` bytes from `offset`: fewer only at the end. */
  read(offset: number, count: number): Promise<Uint8Array<ArrayBuffer>>;
  close(): Promise<void>;
}

/** Ranges of a plain file. */
export async function openBytes(path: string): Promise<ByteReader> {
  const file = await openNode(path, "r");
  const length = (await file.stat()).size;
  return {
    length,
    read(offset, count) {
      const bytes = new Uint8Array(Math.max(0, Math.min(count, length - offset)));
      let done = 0;
      while (done < bytes.length) {
        const n = readSync(file.fd, bytes, done, bytes.length - done, offset + done);
        if (n === 0) break;
        done += n;
      }
      return Promise.resolve(bytes.subarray(0, done));
    },
    close: () => file.close(),
  };
}

/**
 * Ranges of what a gzip file unpacks to. Reading forward costs one pass; reading back starts again from the beginning.
 * One read at a time: others wait.
 */
export function openGzip(path: string): ByteReader {
  let stream: ReturnType<typeof createGunzip> | undefined;
  let parts: AsyncIterator<Uint8Array> | undefined;
  let part: Uint8Array = new Uint8Array(0);
  let at = 0; // position of part's first byte
  let queue: Promise<unknown> = Promise.resolve();
  const stop = () => {
    stream?.destroy();
    stream = undefined;
    parts = undefined;
  };
  const start = () => {
    stop();
    const file = createReadStream(path);
    const unpacked = createGunzip();
    file.on("error", (error: Error) => unpacked.destroy(error));
    unpacked.on("close", () => file.destroy());
    stream = file.pipe(unpacked);
    parts = stream[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
    part = new Uint8Array(0);
    at = 0;
  };
  const read = async (offset: number, count: number) => {
    if (!parts || offset < at) start();
    const bytes = new Uint8Array(count);
    let done = 0;
    while (done < count) {
      const skip = offset + done - at;
      if (skip < part.length) {
        const slice = part.subarray(skip, skip + count - done);
        bytes.set(slice, done);
        done += slice.length;
        continue;
      }
      at += part.length;
      part = new Uint8Array(0);
      const next = await parts!.next();
      if (next.done) break;
      part = next.value;
    }
    return bytes.subarray(0, done);
  };
  return {
    length: Infinity,
    read(offset, count) {
      const result = queue.then(() => read(offset, count));
      queue = result.catch(() => {});
      return result;
    },
    close: async () => {
      await queue;
      stop();
    },
  };
}
