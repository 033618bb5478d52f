// A folder of results that appears whole or not at all; files that could not be written are refused early.

import { dirname } from "node:path";

/** Refuses a folder that holds something already. @throws {RangeError} naming it */
export async function refuseUsedFolder(out: string): Promise<void> {
  try {
    for await (const _ of Deno.readDir(out)) {
      throw new RangeError(`--out ${out}: holds files already: name another folder, or empty it`);
    }
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    if (error instanceof Deno.errors.NotADirectory) throw new RangeError(`--out ${out}: is a file: name a folder`);
    throw error;
  }
}

/**
 * Fills a folder: `fill` writes into a folder beside it, which takes its name when all is there.
 *
 * @param fill when it throws, nothing is left behind
 */
export async function writeFolder<T>(out: string, fill: (folder: string) => Promise<T>): Promise<T> {
  const part = `${out.replace(/[/\\]+$/, "")}.part`;
  await Deno.remove(part, { recursive: true }).catch(() => {}); // of a run that was killed
  await Deno.mkdir(part, { recursive: true });
  try {
    const result = await fill(part);
    await Deno.remove(out).catch(() => {}); // an empty folder
    await Deno.rename(part, out);
    return result;
  } catch (error) {
    await Deno.remove(part, { recursive: true }).catch(() => {});
    throw error;
  }
}

/** Refuses a file in a folder that is not there, before anything is computed for it. @throws {RangeError} naming both */
export async function refuseMissingFolder(flag: string, file: string): Promise<void> {
  const folder = dirname(file);
  const stat = await Deno.stat(folder).catch(() => undefined);
  if (!stat?.isDirectory) throw new RangeError(`${flag} ${file}: there is no folder ${folder}: make it first`);
}
