// The tuner's file: where it lies, that it survives, and that a home that cannot be written is no obstacle.

import { cacheFolder, tuningCache } from "../../../cli/device/tuning_cache.ts";
import { assertEquals } from "../../assert.ts";

Deno.test("the cache folder is the system's own", () => {
  const env = (values: Record<string, string>) => (name: string) => values[name];
  assertEquals(cacheFolder("linux", env({ HOME: "/home/me" })), "/home/me/.cache/denodino");
  assertEquals(cacheFolder("linux", env({ HOME: "/home/me", XDG_CACHE_HOME: "/cache" })), "/cache/denodino");
  assertEquals(cacheFolder("darwin", env({ HOME: "/Users/me" })), "/Users/me/Library/Caches/denodino");
  assertEquals(cacheFolder("windows", env({ LOCALAPPDATA: "C:/cache" })), "C:/cache/denodino");
  assertEquals(cacheFolder("linux", env({})), undefined);
});

Deno.test("tuned choices are found again, and failing to keep them is no error", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const cache = tuningCache(`${folder}/deep`)!;
    assertEquals(await cache.load(), undefined);
    await cache.save("{}");
    assertEquals(await cache.load(), "{}");
    await Deno.writeTextFile(`${folder}/file`, "");
    const blocked = tuningCache(`${folder}/file`)!;
    await blocked.save("{}");
    assertEquals(await blocked.load(), undefined);
    assertEquals(tuningCache(cacheFolder("linux", () => undefined) ?? ""), undefined);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
