// Writes a file so that it is either the whole new one or the old one, whatever happens in between.

import { dirname } from "node:path";

/** Takes bytes in order; resolves when they are handed to the operating system. */
export type WriteBytes = (bytes: Uint8Array) => Promise<void>;

/**
 * Writes `path` through a `.part` file beside it: write, flush to the disk, rename, flush the folder.
 *
 * @param fill writes the content; when it throws, the part is removed and `path` stays as it was
 * @throws whatever `fill` or the disk throws, such as a full disk
 */
export async function writeFileAtomically(path: string, fill: (write: WriteBytes) => Promise<void>): Promise<void> {
  const part = `${path}.part`;
  try {
    using file = await Deno.open(part, { write: true, create: true, truncate: true });
    await fill(async (bytes) => {
      for (let done = 0; done < bytes.length;) done += await file.write(bytes.subarray(done)).catch(naming(path));
    });
    await file.sync().catch(naming(path));
    await Deno.rename(part, path); // fails where a folder has that name
  } catch (error) {
    await Deno.remove(part).catch(() => {}); // it may never have come to be
    throw error;
  }
  await syncFolder(dirname(path));
}

/** Writes a text file as {@linkcode writeFileAtomically} does. */
export async function writeTextAtomically(path: string, content: string): Promise<void> {
  await writeFileAtomically(path, (write) => write(new TextEncoder().encode(content)));
}

/** The system does not say which disk is full. */
function naming(path: string): (error: Error) => never {
  return (error) => {
    error.message = `${path}: ${error.message}`;
    throw error;
  };
}

async function syncFolder(folder: string): Promise<void> {
  // Windows cannot open a folder as a file; its renames are journalled.
  if (Deno.build.os === "windows") return;
  using handle = await Deno.open(folder);
  await handle.sync();
}
