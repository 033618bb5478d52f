// Members of a zip archive (zip64 too) read by ranges: what PyTorch files and npz archives are made of.

import type { ByteSource } from "./safetensors.ts";

/** A file inside an archive. */
export interface ZipMember {
  readonly path: string;
  /** First byte of its local header. */
  readonly header: number;
  /** Bytes unpacked. */
  readonly bytes: number;
  /** Bytes in the archive. */
  readonly packed: number;
  readonly deflated: boolean;
}

const END_BYTES = 22;
const MAX_COMMENT = 0xffff;
const ENTRY_BYTES = 46;
/** A directory of a million members; checkpoints have thousands. */
const MAX_DIRECTORY = 2 ** 27;
/** Deflate cannot do better than this: more is a lie about the size. */
const MAX_DEFLATE_RATIO = 1032;

/**
 * Lists an archive by its directory.
 *
 * @throws {SyntaxError} if it is not a zip archive, is cut off, or contradicts itself
 */
export async function readZipDirectory(source: ByteSource): Promise<Map<string, ZipMember>> {
  const fail = (message: string): never => {
    throw new SyntaxError(`${source.name}: ${message}`);
  };
  const { offset, bytes, count } = await findDirectory(source, fail);
  if (bytes > MAX_DIRECTORY || offset + bytes > source.size) {
    fail(`its zip directory of ${bytes} bytes at ${offset} lies outside the file: it is damaged`);
  }
  const directory = view(await source.read(offset, offset + bytes));
  const members = new Map<string, ZipMember>();
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + ENTRY_BYTES > bytes || directory.getUint32(at, true) !== 0x02014b50) {
      fail(`its zip directory breaks off after ${i} of ${count} members: it is damaged`);
    }
    const flags = directory.getUint16(at + 8, true), method = directory.getUint16(at + 10, true);
    const nameLength = directory.getUint16(at + 28, true), extraLength = directory.getUint16(at + 30, true);
    const next = at + ENTRY_BYTES + nameLength + extraLength + directory.getUint16(at + 32, true);
    if (next > bytes) fail(`its zip directory breaks off in member ${i}: it is damaged`);
    const path = new TextDecoder().decode(new Uint8Array(directory.buffer, at + ENTRY_BYTES, nameLength));
    const sizes = sizesOf(directory, at, nameLength, extraLength);
    if (flags & 1) fail(`member "${path}" is encrypted`);
    if (method !== 0 && method !== 8) fail(`member "${path}" is packed by method ${method}: 0 and 8 are known`);
    if (members.has(path)) fail(`member "${path}" is there twice`);
    const deflated = method === 8;
    if (!deflated && sizes.bytes !== sizes.packed) fail(`member "${path}" is stored in another size than its own`);
    if (sizes.header + 30 + sizes.packed > offset) fail(`member "${path}" lies outside the file: it is damaged`);
    if (deflated && sizes.bytes > sizes.packed * MAX_DEFLATE_RATIO + 64) {
      fail(`member "${path}" cannot unpack to ${sizes.bytes} bytes`);
    }
    members.set(path, { path, ...sizes, deflated });
    at = next;
  }
  return members;
}

/** Where the bytes of a stored member begin: behind its local header, whose extra field differs from the directory's. */
export async function memberStart(source: ByteSource, member: ZipMember): Promise<number> {
  const header = view(await source.read(member.header, member.header + 30));
  if (header.getUint32(0, true) !== 0x04034b50) {
    throw new SyntaxError(`${source.name}: there is no member "${member.path}" where the directory says`);
  }
  const start = member.header + 30 + header.getUint16(26, true) + header.getUint16(28, true);
  if (start + member.packed > source.size) {
    throw new SyntaxError(`${source.name}: member "${member.path}" lies outside the file: it is damaged`);
  }
  return start;
}

/**
 * All bytes of a member, unpacked.
 *
 * @param most a member that is larger is refused before it is read
 */
export async function readMember(
  source: ByteSource,
  member: ZipMember,
  most: number,
): Promise<Uint8Array<ArrayBuffer>> {
  if (member.bytes > most) {
    throw new SyntaxError(
      `${source.name}: member "${member.path}" has ${member.bytes} bytes, at most ${most} are read`,
    );
  }
  const start = await memberStart(source, member);
  const packed = await source.read(start, start + member.packed);
  return member.deflated ? await inflate(source, member, packed) : packed;
}

/** Never holds more than the member says it has. */
async function inflate(source: ByteSource, member: ZipMember, packed: Uint8Array<ArrayBuffer>) {
  const bytes = new Uint8Array(member.bytes);
  let done = 0;
  const fail = (why: string) => new SyntaxError(`${source.name}: member "${member.path}" does not unpack: ${why}`);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  try {
    for await (const part of stream) {
      if (done + part.length > bytes.length) throw fail("it is longer than it says");
      bytes.set(part, done);
      done += part.length;
    }
  } catch (error) {
    throw error instanceof SyntaxError ? error : fail((error as Error).message);
  }
  if (done < bytes.length) throw fail("it is shorter than it says");
  return bytes;
}

async function findDirectory(source: ByteSource, fail: (message: string) => never) {
  const start = Math.max(0, source.size - END_BYTES - MAX_COMMENT);
  const tail = view(await source.read(start, source.size));
  for (let at = tail.byteLength - END_BYTES; at >= 0; at--) {
    if (tail.getUint32(at, true) !== 0x06054b50) continue;
    // The record and its comment must end with the file: otherwise bytes were cut off, or this is no record.
    if (at + END_BYTES + tail.getUint16(at + 20, true) !== tail.byteLength) continue;
    const end = {
      count: tail.getUint16(at + 10, true),
      bytes: tail.getUint32(at + 12, true),
      offset: tail.getUint32(at + 16, true),
    };
    if (end.count !== 0xffff && end.bytes !== 0xffffffff && end.offset !== 0xffffffff) return end;
    if (at < 20 || tail.getUint32(at - 20, true) !== 0x07064b50) return end;
    const place = Number(tail.getBigUint64(at - 12, true)); // of the larger record, which the locator before names
    if (place + 56 > source.size) fail("its zip64 record lies outside the file: it is damaged");
    const record = view(await source.read(place, place + 56));
    if (record.getUint32(0, true) !== 0x06064b50) fail("it has no zip64 record where its locator says");
    return {
      count: Number(record.getBigUint64(32, true)),
      bytes: Number(record.getBigUint64(40, true)),
      offset: Number(record.getBigUint64(48, true)),
    };
  }
  return fail("it begins like a zip archive but does not end like one: it is truncated");
}

/** Sizes that do not fit 32 bits lie in extra field 1, in this order, only those that need it. */
function sizesOf(directory: DataView, at: number, nameLength: number, extraLength: number) {
  const sizes = {
    bytes: directory.getUint32(at + 24, true),
    packed: directory.getUint32(at + 20, true),
    header: directory.getUint32(at + 42, true),
  };
  const first = at + ENTRY_BYTES + nameLength;
  for (let field = first; field + 4 <= first + extraLength;) {
    const id = directory.getUint16(field, true), length = directory.getUint16(field + 2, true);
    const end = Math.min(field + 4 + length, first + extraLength);
    if (id === 1) {
      let from = field + 4;
      for (const key of ["bytes", "packed", "header"] as const) {
        if (sizes[key] !== 0xffffffff || from + 8 > end) continue;
        sizes[key] = Number(directory.getBigUint64(from, true));
        from += 8;
      }
    }
    field += 4 + length;
  }
  return sizes;
}

const view = (bytes: Uint8Array<ArrayBuffer>) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
