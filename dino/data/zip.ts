// Finds the members of a zip archive (zip64 too) by its central directory; nothing is unpacked to disk.

import type { ArchiveMember } from "./archive_member.ts";
import type { ByteReader } from "./byte_reader.ts";

const END_RECORD = 22; // bytes of the end record without its comment
const MAX_COMMENT = 0xffff;
/** 46 bytes and a name each: a directory beyond this is no data set. */
const MAX_DIRECTORY_BYTES = 2 ** 30;

/**
 * Lists the files of a zip archive.
 *
 * @throws {SyntaxError} if it is not a zip archive, is cut off, or contradicts itself
 */
export async function listZip(reader: ByteReader, name: string): Promise<ArchiveMember[]> {
  const { offset, bytes: size, count } = await findDirectory(reader, name);
  if (offset + size > reader.length || size > MAX_DIRECTORY_BYTES) {
    throw new SyntaxError(`${name}: its directory of ${size} bytes at ${offset} lies outside the file: get it again`);
  }
  const directory = viewOf(await reader.read(offset, size));
  const members: ArchiveMember[] = [];
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + 46 > size || directory.getUint32(at, true) !== 0x02014b50) {
      throw new SyntaxError(`${name}: its directory breaks off after ${i} of ${count} members: get the archive again`);
    }
    const flags = directory.getUint16(at + 8, true);
    const method = directory.getUint16(at + 10, true);
    const nameLength = directory.getUint16(at + 28, true), extraLength = directory.getUint16(at + 30, true);
    const next = at + 46 + nameLength + extraLength + directory.getUint16(at + 32, true);
    if (next > size) throw new SyntaxError(`${name}: its directory breaks off in member ${i}: get the archive again`);
    const fields = {
      unpacked: directory.getUint32(at + 24, true),
      packed: directory.getUint32(at + 20, true),
      offset: directory.getUint32(at + 42, true),
    };
    readZip64(directory, at + 46 + nameLength, extraLength, fields);
    const bytes = new Uint8Array(directory.buffer, directory.byteOffset + at + 46, nameLength);
    const path = new TextDecoder().decode(bytes).replaceAll("\\", "/").replace(/^(\.?\/)+/, "");
    if (!path.endsWith("/")) {
      members.push({
        path,
        offset: fields.offset,
        bytes: fields.unpacked,
        packed: fields.packed,
        method: flags & 1 ? "encrypted" : method === 0 ? "stored" : method === 8 ? "deflate" : `method ${method}`,
        localHeader: true,
      });
    }
    at = next;
  }
  return members;
}

/** Where a member's bytes begin: behind its local header, whose extra field may differ from the directory's. */
export async function dataOffset(reader: ByteReader, member: ArchiveMember): Promise<number> {
  const header = viewOf(await reader.read(member.offset, 30));
  if (header.byteLength < 30 || header.getUint32(0, true) !== 0x04034b50) {
    throw new SyntaxError("no member where the directory says");
  }
  return member.offset + 30 + header.getUint16(26, true) + header.getUint16(28, true);
}

async function findDirectory(
  reader: ByteReader,
  name: string,
): Promise<{ offset: number; bytes: number; count: number }> {
  const start = Math.max(0, reader.length - END_RECORD - MAX_COMMENT);
  const tail = viewOf(await reader.read(start, reader.length - start));
  for (let at = tail.byteLength - END_RECORD; at >= 0; at--) {
    if (tail.getUint32(at, true) !== 0x06054b50) continue;
    const end = {
      count: tail.getUint16(at + 10, true),
      bytes: tail.getUint32(at + 12, true),
      offset: tail.getUint32(at + 16, true),
    };
    const zip64 = end.count === 0xffff || end.bytes === 0xffffffff || end.offset === 0xffffffff;
    // zip64: a locator just before names the place of the larger record.
    if (zip64 && at >= 20 && tail.getUint32(at - 20, true) === 0x07064b50) {
      const record = viewOf(await reader.read(Number(tail.getBigUint64(at - 12, true)), 56));
      if (record.byteLength === 56 && record.getUint32(0, true) === 0x06064b50) {
        return {
          count: Number(record.getBigUint64(32, true)),
          bytes: Number(record.getBigUint64(40, true)),
          offset: Number(record.getBigUint64(48, true)),
        };
      }
    }
    return end;
  }
  throw new SyntaxError(`${name}: not a zip archive, or cut off (no end record): get it again`);
}

/** Fields that do not fit 32 bits lie in extra field 1, in this order, only those that need it. */
function readZip64(
  directory: DataView,
  start: number,
  length: number,
  fields: { unpacked: number; packed: number; offset: number },
): void {
  for (let at = start; at + 4 <= start + length;) {
    const id = directory.getUint16(at, true), size = directory.getUint16(at + 2, true);
    if (id === 1) {
      let from = at + 4;
      const end = Math.min(from + size, start + length);
      for (const key of ["unpacked", "packed", "offset"] as const) {
        if (fields[key] !== 0xffffffff || from + 8 > end) continue;
        fields[key] = Number(directory.getBigUint64(from, true));
        from += 8;
      }
    }
    at += 4 + size;
  }
}

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
