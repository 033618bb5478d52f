// Finds the members of a tar archive (ustar, pax and GNU names), gzipped or not; nothing is unpacked to disk.

import type { ByteReader } from "./byte_reader.ts";
import type { ArchiveMember } from "./archive_member.ts";

const BLOCK = 512;
/** A pax header or a GNU long name is a few hundred bytes; more than this is an attack or an accident. */
const MAX_NAME_BYTES = 1 << 20;

/**
 * Lists the regular files of a tar archive.
 *
 * @param onDamage told where and why reading stopped, when that is before the archive's end
 * @throws {SyntaxError} if the file does not begin as a tar archive
 */
export async function listTar(
  reader: ByteReader,
  name: string,
  onDamage: (reason: string) => void,
): Promise<ArchiveMember[]> {
  const members: ArchiveMember[] = [];
  let offset = 0;
  let next: { path?: string; size?: number } = {}; // what an extended header says of the member behind it
  for (;;) {
    const damaged = (reason: string) => {
      if (offset === 0) throw new SyntaxError(`${name}: not a tar archive (${reason})`);
      onDamage(`${reason} at byte ${offset}: the rest of the archive is not read`);
      return members;
    };
    let header: Uint8Array;
    try {
      header = await reader.read(offset, BLOCK);
    } catch (error) {
      return damaged((error as Error).message);
    }
    if (header.length < BLOCK) {
      // Archives that end without their two empty blocks are common and complete.
      return header.length === 0 && offset > 0 ? members : damaged("cut off");
    }
    if (header.every((byte) => byte === 0)) return members;
    if (!checksumHolds(header)) return damaged("a header whose checksum is wrong");
    const type = String.fromCharCode(header[156]);
    const size = next.size ?? numberAt(header, 124, 12);
    if (!(size >= 0 && size <= Number.MAX_SAFE_INTEGER)) return damaged(`a member of ${size} bytes`);
    const data = offset + BLOCK;
    if (data + size > reader.length) return damaged(`a member of ${size} bytes, cut off`);
    if (type === "x" || type === "L") {
      if (size > MAX_NAME_BYTES) return damaged(`a name of ${size} bytes`);
      const bytes = await reader.read(data, size);
      if (type === "L") next.path = textOf(bytes);
      else next = { ...next, ...paxOf(bytes) };
    } else {
      if (type === "0" || type === "\0" || type === "7") {
        members.push({
          path: (next.path ?? nameOf(header)).replace(/^(\.?\/)+/, ""),
          offset: data,
          bytes: size,
          method: "stored",
        });
      }
      next = {};
    }
    offset = data + Math.ceil(size / BLOCK) * BLOCK;
  }
}

/** The sum of the header's bytes, its own field taken as spaces. */
function checksumHolds(header: Uint8Array): boolean {
  let sum = 0;
  for (let i = 0; i < BLOCK; i++) sum += i >= 148 && i < 156 ? 32 : header[i];
  return sum === numberAt(header, 148, 8);
}

/** Octal digits, or GNU's big-endian binary behind a first byte of 0x80. */
function numberAt(header: Uint8Array, start: number, length: number): number {
  const field = header.subarray(start, start + length);
  if (field[0] & 0x80) {
    let value = field[0] & 0x7f;
    for (const byte of field.subarray(1)) value = value * 256 + byte;
    return value;
  }
  const digits = textOf(field).trim();
  return digits === "" ? 0 : /^[0-7]+$/.test(digits) ? parseInt(digits, 8) : NaN;
}

function nameOf(header: Uint8Array): string {
  const name = textOf(header.subarray(0, 100));
  // POSIX writes "ustar\0", and only there 345 … 500 is a prefix.
  const prefix = textOf(header.subarray(257, 263)) === "ustar" && header[262] === 0
    ? textOf(header.subarray(345, 500))
    : "";
  return prefix === "" ? name : `${prefix}/${name}`;
}

/** Records "length key=value\n"; only path and size matter here. */
function paxOf(bytes: Uint8Array): { path?: string; size?: number } {
  const result: { path?: string; size?: number } = {};
  for (let at = 0; at < bytes.length;) {
    const space = bytes.indexOf(32, at);
    const length = space < 0 ? NaN : Number(textOf(bytes.subarray(at, space)));
    if (!(length > space - at && at + length <= bytes.length)) break;
    const [, key, value] = textOf(bytes.subarray(space + 1, at + length - 1)).match(/^([^=]*)=([^]*)$/) ?? [];
    if (key === "path") result.path = value;
    if (key === "size") result.size = Number(value);
    at += length;
  }
  return result;
}

/** UTF-8 up to the first zero byte. */
function textOf(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}
