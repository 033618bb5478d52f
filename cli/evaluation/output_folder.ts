// A folder of results that appears whole or not at all; files that could not be written are refused early.

import { pathExists } from "../../dino/path_exists.ts";
import { dirname, resolve } from "node:path";

/** Refuses a folder that holds something already, or could not be made. @throws {RangeError} naming it */
export async function refuseUsedFolder(out: string): Promise<void> {
  try {
    for await (const _ of Deno.readDir(out)) {
      throw new RangeError(`--out ${out}: holds files already: name another folder, or empty it`);
    }
  } catch (error) {
    if (error instanceof Deno.errors.NotADirectory) throw new RangeError(`--out ${out}: is a file: name a folder`);
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  await trying(`--out ${out}`, async () => {
    await Deno.remove(await Deno.makeTempDir({ dir: await nearestFolder(out), prefix: ".denodino-" }));
  });
}

/** The folder itself, or the nearest one above that is there. */
async function nearestFolder(path: string): Promise<string> {
  for (let at = resolve(path);; at = dirname(at)) if (await pathExists(at) || dirname(at) === at) return at;
}

const partOf = (out: string) => `${out.replace(/[/\\]+$/, "")}.part`;

/** What keeps `write` from writing, as the user's mistake. */
async function trying(what: string, write: () => Promise<void>): Promise<void> {
  try {
    await write();
  } catch (error) {
    const [reason] = (error as Error).message.split(/ \(os error|:/);
    throw new RangeError(`${what}: cannot be written: ${reason}: name another place`);
  }
}

/**
 * Fills a folder: `fill` writes into a folder beside it, which takes its name when all is there.
 *
 * @param fill when it throws, nothing is left behind
 */
export async function writeFolder<T>(out: string, fill: (folder: string) => Promise<T>): Promise<T> {
  const part = partOf(out);
  await Deno.remove(part, { recursive: true }).catch(() => {}); // of a run that was killed
  const above = await nearestFolder(dirname(resolve(part)));
  await Deno.mkdir(part, { recursive: true });
  try {
    const result = await fill(part);
    await Deno.remove(out).catch(() => {}); // an empty folder
    await Deno.rename(part, out);
    return result;
  } catch (error) {
    await Deno.remove(part, { recursive: true }).catch(() => {});
    for (let at = dirname(resolve(part)); at !== above; at = dirname(at)) await Deno.remove(at).catch(() => {});
    throw error;
  }
}

/**
 * Refuses a file that could not be written, before anything is computed for it.
 *
 * @param what names it in messages
 * @throws {RangeError} if its folder is not there, or closed to us, or it is a folder itself
 */
export async function refuseUnwritableFile(what: string, file: string): Promise<void> {
  const folder = dirname(file);
  const stat = await Deno.stat(folder).catch(() => undefined);
  if (!stat?.isDirectory) throw new RangeError(`${what}: there is no folder ${folder}: make it first`);
  if ((await Deno.stat(file).catch(() => undefined))?.isDirectory) {
    throw new RangeError(`${what}: is a folder: name a file`);
  }
  const part = `${file}.part`; // as files are written
  if (await pathExists(part)) return;
  await trying(what, async () => {
    (await Deno.open(part, { write: true, createNew: true })).close();
    await Deno.remove(part);
  });
}
