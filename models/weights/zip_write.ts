// Writes a zip archive (zip64 where it must) of stored members as a stream, each member's bytes aligned as PyTorch likes it.

import { crc32 } from "node:zlib";
import type { WriteBytes } from "./atomic_file.ts";

/** A file to be put into an archive. */
export interface MemberToWrite {
  readonly path: string;
  /** Bytes its content will have. */
  readonly bytes: number;
  /** Content in parts, asked for when its turn comes. */
  content(): Promise<readonly Uint8Array[]>;
}

/** PyTorch maps storages into memory, and puts them where a cache line begins. */
const ALIGNMENT = 64;
const ZIP64 = 0xffffffff;

/**
 * Writes all members and the directory.
 *
 * @throws {RangeError} if a member gives another number of bytes than it said
 */
export async function streamZip(write: WriteBytes, members: readonly MemberToWrite[]): Promise<void> {
  const entries: Uint8Array[] = [];
  let at = 0;
  const put = async (bytes: Uint8Array) => {
    await write(bytes);
    at += bytes.length;
  };
  for (const member of members) {
    const parts = await member.content();
    const bytes = parts.reduce((sum, part) => sum + part.length, 0);
    if (bytes !== member.bytes) {
      throw new RangeError(`"${member.path}": ${bytes} bytes, ${member.bytes} were announced`);
    }
    const checksum = parts.reduce((sum, part) => crc32(part, sum), 0) >>> 0;
    const path = new TextEncoder().encode(member.path);
    const header = at;
    await put(localHeader(path, bytes, checksum, at));
    for (const part of parts) await put(part);
    entries.push(directoryEntry(path, bytes, checksum, header));
  }
  const directory = at;
  for (const entry of entries) await put(entry);
  await put(endRecords(entries.length, directory, at));
}

function localHeader(path: Uint8Array, bytes: number, checksum: number, at: number): Uint8Array {
  const large = bytes >= ZIP64;
  const fixed = 30 + path.length + (large ? 20 : 0);
  // A field of its own ("FB", as PyTorch's) pads up to the alignment.
  const padding = (ALIGNMENT - (at + fixed + 4) % ALIGNMENT) % ALIGNMENT;
  const header = new Uint8Array(fixed + 4 + padding);
  const view = new DataView(header.buffer);
  view.setUint32(0, 0x04034b50, true);
  commonFields(view, 4, bytes, checksum, path.length, header.length - 30 - path.length);
  header.set(path, 30);
  let extra = 30 + path.length;
  if (large) extra = zip64Field(view, extra, [bytes, bytes]);
  view.setUint16(extra, 0x4246, true);
  view.setUint16(extra + 2, padding, true);
  return header;
}

function directoryEntry(path: Uint8Array, bytes: number, checksum: number, header: number): Uint8Array {
  const large = bytes >= ZIP64, far = header >= ZIP64;
  const values = [...(large ? [bytes, bytes] : []), ...(far ? [header] : [])];
  const extra = values.length > 0 ? 4 + 8 * values.length : 0;
  const entry = new Uint8Array(46 + path.length + extra);
  const view = new DataView(entry.buffer);
  view.setUint32(0, 0x02014b50, true);
  view.setUint16(4, 45, true);
  commonFields(view, 6, bytes, checksum, path.length, extra);
  view.setUint32(42, far ? ZIP64 : header, true);
  entry.set(path, 46);
  if (values.length > 0) zip64Field(view, 46 + path.length, values);
  return entry;
}

/** Version, flags, method, time, checksum, sizes, lengths: the same in both kinds of header. */
function commonFields(view: DataView, at: number, bytes: number, checksum: number, path: number, extra: number) {
  view.setUint16(at, 45, true); // version 4.5 knows zip64
  view.setUint16(at + 2, 0x0800, true); // names are UTF-8
  view.setUint16(at + 8, 0x21, true); // 1 January 1980: the same content gives the same bytes
  view.setUint32(at + 10, checksum, true);
  view.setUint32(at + 14, Math.min(bytes, ZIP64), true);
  view.setUint32(at + 18, Math.min(bytes, ZIP64), true);
  view.setUint16(at + 22, path, true);
  view.setUint16(at + 24, extra, true);
}

function zip64Field(view: DataView, at: number, values: readonly number[]): number {
  view.setUint16(at, 1, true);
  view.setUint16(at + 2, 8 * values.length, true);
  values.forEach((value, i) => view.setBigUint64(at + 4 + 8 * i, BigInt(value), true));
  return at + 4 + 8 * values.length;
}

function endRecords(count: number, directory: number, end: number): Uint8Array {
  const large = count >= 0xffff || directory >= ZIP64 || end - directory >= ZIP64;
  const bytes = new Uint8Array(22 + (large ? 76 : 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  if (large) {
    view.setUint32(0, 0x06064b50, true);
    view.setBigUint64(4, 44n, true);
    view.setUint16(12, 45, true);
    view.setUint16(14, 45, true);
    [count, count, end - directory, directory].forEach((value, i) =>
      view.setBigUint64(24 + 8 * i, BigInt(value), true)
    );
    view.setUint32(56, 0x07064b50, true);
    view.setBigUint64(64, BigInt(end), true);
    view.setUint32(72, 1, true);
    at = 76;
  }
  view.setUint32(at, 0x06054b50, true);
  view.setUint16(at + 8, Math.min(count, 0xffff), true);
  view.setUint16(at + 10, Math.min(count, 0xffff), true);
  view.setUint32(at + 12, Math.min(end - directory, ZIP64), true);
  view.setUint32(at + 16, Math.min(directory, ZIP64), true);
  return bytes;
}
