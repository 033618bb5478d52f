// Frames between a decoder process and its owner: two lengths, a header in JSON, then bytes.

import type { DecodeOptions } from "../../dino/data/decoder.ts";

/** Asks for one image: a path, or else the frame's bytes. */
export interface DecodeRequest {
  path?: string;
  /** Only height and width. */
  measure?: boolean;
  options?: DecodeOptions;
}

/** Answers it; the frame's bytes are the pixels. */
export type DecodeReply =
  | { ok: true; height: number; width: number }
  | { ok: false; reason: string; passing: boolean };

/** What a decoder says when it is about to read its first request. */
export const READY: DecodeReply = { ok: true, height: 0, width: 0 };

/** Exit status of a decoder that outgrew its memory. */
export const EXIT_BLOATED = 77;

/** A header is a path and a few numbers. */
const MAX_HEADER_BYTES = 1 << 20;

/** Reads a frame; undefined at the end of the stream. */
export async function readFrame<H>(
  reader: ReadableStreamBYOBReader,
): Promise<{ header: H; payload: Uint8Array<ArrayBuffer> } | undefined> {
  const lengths = await readExactly(reader, 8);
  if (!lengths) return;
  const view = new DataView(lengths.buffer);
  const headerLength = view.getUint32(0, true), payloadLength = view.getUint32(4, true);
  if (headerLength > MAX_HEADER_BYTES) throw new SyntaxError(`a frame with a header of ${headerLength} bytes`);
  const header = await readExactly(reader, headerLength);
  const payload = await readExactly(reader, payloadLength);
  if (!header || !payload) return;
  return { header: JSON.parse(new TextDecoder().decode(header)), payload };
}

/** Writes a frame. */
export async function writeFrame(
  writer: { write(bytes: Uint8Array): Promise<number> },
  header: DecodeRequest | DecodeReply,
  payload: Uint8Array = new Uint8Array(0),
): Promise<void> {
  const json = new TextEncoder().encode(JSON.stringify(header));
  const start = new Uint8Array(8 + json.length);
  const view = new DataView(start.buffer);
  view.setUint32(0, json.length, true);
  view.setUint32(4, payload.length, true);
  start.set(json, 8);
  for (const bytes of [start, payload]) {
    for (let done = 0; done < bytes.length;) done += await writer.write(bytes.subarray(done));
  }
}

/** Exactly `count` bytes, or undefined if the stream ends before. */
async function readExactly(
  reader: ReadableStreamBYOBReader,
  count: number,
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  let buffer = new ArrayBuffer(count);
  for (let done = 0; done < count;) {
    const { value } = await reader.read(new Uint8Array(buffer, done, count - done));
    if (!value || value.length === 0) return;
    done += value.length;
    buffer = value.buffer; // a byob read hands the buffer on
  }
  return new Uint8Array(buffer);
}
