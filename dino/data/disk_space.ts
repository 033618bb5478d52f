// Free space on the disk that a path is, or will be, on.

import { statfs } from "node:fs/promises";
import { dirname, resolve } from "node:path";

/**
 * Bytes that may still be written below `path`, whose folders need not exist yet; undefined where the system does not tell,
 * or this process may not ask.
 */
export async function freeBytes(path: string): Promise<number | undefined> {
  // Asked first: a program with few permissions shall not be stopped by a prompt.
  if ((await Deno.permissions.query({ name: "sys", kind: "statfs" })).state !== "granted") return undefined;
  for (let at = resolve(path);; at = dirname(at)) {
    try {
      const { bavail, bsize } = await statfs(at);
      return bavail * bsize;
    } catch {
      if (dirname(at) === at) return undefined;
    }
  }
}
