// Where the choices of the WebGPU tuner are kept between runs: a file in the user's cache folder, if there is one.

import type { TuningCache } from "../../gpu/mod.ts";

const FILE = "webgpu-tiles.json";

/** The user's cache folder for this program; undefined where the environment names none. */
export function cacheFolder(
  os: string = Deno.build.os,
  env: (name: string) => string | undefined = (name) => Deno.env.get(name),
): string | undefined {
  const base = os === "windows"
    ? env("LOCALAPPDATA")
    : os === "darwin"
    ? env("HOME") && `${env("HOME")}/Library/Caches`
    : env("XDG_CACHE_HOME") || (env("HOME") && `${env("HOME")}/.cache`);
  return base ? `${base}/denodino` : undefined;
}

/** A cache in `folder`. It only saves time: where it cannot be read or written, every run tunes anew. */
export function tuningCache(folder: string | undefined = cacheFolder()): TuningCache | undefined {
  if (!folder) return undefined;
  return {
    load: () => Deno.readTextFile(`${folder}/${FILE}`).catch(() => undefined),
    save: async (text) => {
      const unfinished = `${folder}/${FILE}.${Deno.pid}`;
      try {
        await Deno.mkdir(folder, { recursive: true });
        await Deno.writeTextFile(unfinished, text);
        await Deno.rename(unfinished, `${folder}/${FILE}`); // whole or not at all, should two runs save at once
      } catch { /* a read-only home; the run goes on with what it found */ }
    },
  };
}
