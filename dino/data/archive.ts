// Images inside a tar or zip archive as a data set, read where they lie.

import { inflateRawSync } from "node:zlib";
import type { ArchiveMember } from "./archive_member.ts";
import { type ByteReader, openBytes, openGzip } from "./byte_reader.ts";
import { arrangePaths } from "./class_folders.ts";
import type { EncodedDataset, SkippedImage, Split } from "./dataset.ts";
import { DecodeError, isImageName, MAX_ENCODED_BYTES } from "./decode.ts";
import { listTar } from "./tar.ts";
import { dataOffset, listZip } from "./zip.ts";

/** Whether a file's name is one that archives go by. */
export const isArchiveName = (name: string): boolean => /\.(tar|tar\.gz|tgz|zip)$/i.test(name);

/**
 * Opens the images of a tar, tar.gz or zip archive, in the order of their paths; class folders become labels.
 *
 * @throws {SyntaxError} if the archive does not parse
 * @throws {RangeError} if it holds no image
 */
export async function openArchive(file: string, split: Split, limit = Infinity): Promise<EncodedDataset> {
  const key = await Deno.realPath(file);
  const mtime = (await Deno.stat(file)).mtime?.getTime() ?? 0;
  const kind = /\.zip$/i.test(file) ? "zip" : "tar";
  const compressed = /gz$/i.test(file);
  const reader = compressed ? openGzip(key) : await openBytes(key);
  const damage: SkippedImage[] = [];
  try {
    const all = kind === "zip"
      ? await listZip(reader, file)
      : await listTar(reader, file, (reason) => damage.push({ id: file, reason }));
    const byPath = new Map(all.filter(({ path }) => isImageName(path)).map((member) => [member.path, member]));
    const members = [...byPath.values()]; // of two members with one name the later one counts, as when unpacking
    if (members.length === 0) {
      throw new RangeError(`${file}: none of its ${all.length} files is an image: name an archive of images`);
    }
    const arrangement = arrangePaths(members.map(({ path }) => path), split);
    const chosen = Array.from(
      arrangement.order.subarray(0, Math.min(limit, arrangement.order.length)),
      (i) => members[i],
    );
    return {
      kind,
      name: file,
      length: chosen.length,
      labels: arrangement.labels?.slice(0, chosen.length),
      classNames: arrangement.classNames,
      damage,
      // A compressed archive can only be read forward.
      readOrder: compressed
        ? Uint32Array.from(chosen.keys()).sort((a, b) => chosen[a].offset - chosen[b].offset)
        : undefined,
      entry: (i) => ({ id: chosen[i].path, key: `${key}\0${chosen[i].path}`, bytes: chosen[i].bytes, mtime }),
      read: (i) => readMember(reader, chosen[i]),
      close: () => void reader.close(),
    };
  } catch (error) {
    await reader.close();
    throw error;
  }
}

/** A member's bytes, unpacked; never more than it declares, nor more than any image needs. */
async function readMember(reader: ByteReader, member: ArchiveMember): Promise<Uint8Array<ArrayBuffer>> {
  const { bytes, packed = bytes, method } = member;
  if (method !== "stored" && method !== "deflate") throw new DecodeError(`${method} in the archive: cannot be read`);
  if (Math.max(bytes, packed) > MAX_ENCODED_BYTES) {
    throw new DecodeError(`${bytes} bytes: more than ${MAX_ENCODED_BYTES}`);
  }
  try {
    const stored = await reader.read(member.localHeader ? await dataOffset(reader, member) : member.offset, packed);
    if (stored.length < packed) throw new DecodeError("cut off in the archive");
    if (method === "stored") return stored;
    const unpacked = bytes === 0 ? new Uint8Array(0) : inflateRawSync(stored, { maxOutputLength: bytes });
    return new Uint8Array(unpacked.buffer, unpacked.byteOffset, unpacked.length) as Uint8Array<ArrayBuffer>;
  } catch (error) {
    throw error instanceof DecodeError ? error : new DecodeError(`cannot be unpacked: ${(error as Error).message}`);
  }
}
