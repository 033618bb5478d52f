// The packed cache: reuse, damage, budgets, several writers, and runs that are killed.

import type { DataEvent, PixelSource } from "../../../dino/data/dataset.ts";
import { createDecoder, DecodeError } from "../../../dino/data/decode.ts";
import { type Decoder, DecoderFailure } from "../../../dino/data/decoder.ts";
import { type OpenOptions, openPixels, reopenPixels } from "../../../dino/data/open.ts";
import { readIndexes } from "../../../dino/data/packs.ts";
import { assert, assertEquals, assertRejects, assertStringIncludes } from "../../assert.ts";
import { png, testPixels, withFiles } from "./make_images.ts";

const COUNT = 6;

/** Images i of (3 + i) × (5 + i), of seed i + 1. */
async function images(): Promise<Record<string, Uint8Array>> {
  const files: Record<string, Uint8Array> = {};
  for (let i = 0; i < COUNT; i++) files[`data/${i}.png`] = await png(3 + i, 5 + i, i + 1);
  return files;
}

/** Opens with a decoder that counts what it decodes. */
async function open(folder: string, options: OpenOptions = {}) {
  const decoder = createDecoder();
  let decodes = 0;
  const counting: Decoder = { ...decoder, decode: (...args) => (decodes++, decoder.decode(...args)) };
  const events: DataEvent[] = [];
  const source = await openPixels(`${folder}/data`, {
    cacheDirectory: `${folder}/cache`,
    decoder: counting,
    onEvent: (event) => events.push(event),
    ...options,
  });
  return { source, decodes, cache: events.filter((event) => event.type === "cache").at(-1)!, events };
}

async function checkPixels(source: PixelSource) {
  const all = Array.from({ length: source.length }, (_, i) => i);
  const { pixels, table } = await source.readBatch(all);
  for (const i of all) {
    const [offset, height, width] = table.subarray(3 * i);
    const seed = Number(source.id(i).match(/\d+/)![0]);
    assertEquals([height, width], [3 + seed, 5 + seed]);
    assertEquals(pixels.subarray(offset, offset + height * width * 3), testPixels(height, width, 3, seed + 1));
  }
  source.close();
}

const packs = (folder: string, kind: string) =>
  Array.from(Deno.readDirSync(`${folder}/cache`), ({ name }) => name).filter((name) => name.endsWith(kind)).sort();

Deno.test("the cache decodes once, and another process opens it by its locator", async () => {
  await withFiles(await images(), async (folder) => {
    const first = await open(folder);
    assertEquals([first.decodes, first.source.length], [COUNT, COUNT]);
    await checkPixels(first.source);
    const second = await open(folder);
    assertEquals([second.decodes, second.cache.cached], [0, COUNT]);
    assertEquals(second.source.fingerprint, first.source.fingerprint);
    const locator = JSON.parse(JSON.stringify(second.source.locator));
    await checkPixels(second.source);
    await Deno.remove(`${folder}/data`, { recursive: true }); // decoded pixels are all it takes
    const again = await reopenPixels(locator);
    assertEquals([again.fingerprint, again.name], [first.source.fingerprint, first.source.name]);
    await checkPixels(again);
  });
});

Deno.test("a changed, added or removed file is noticed", async () => {
  await withFiles(await images(), async (folder) => {
    const first = await open(folder);
    first.source.close();
    await Deno.writeFile(`${folder}/data/6.png`, await png(9, 11, 7));
    await Deno.remove(`${folder}/data/0.png`);
    await Deno.utime(`${folder}/data/1.png`, new Date(), new Date(1e12));
    const second = await open(folder);
    assertEquals([second.decodes, second.source.length], [2, COUNT]);
    assert(second.source.fingerprint !== first.source.fingerprint);
    await checkPixels(second.source);
  });
});

Deno.test("EXIF handling and size are part of the key", async () => {
  await withFiles(await images(), async (folder) => {
    (await open(folder)).source.close();
    for (
      const [options, decodes] of [[{ exif: false }, COUNT], [{ cacheSize: 4 }, COUNT], [{ cacheSize: 4 }, 0], [
        {},
        0,
      ]] as const
    ) {
      const opened = await open(folder, options);
      assertEquals(opened.decodes, decodes, JSON.stringify(options));
      opened.source.close();
    }
    const { source } = await open(folder, { cacheSize: 4 });
    assertEquals([source.size(0), source.size(5)], [{ height: 3, width: 5 }, { height: 4, width: 5 }]);
    source.close();
  });
});

Deno.test("a truncated pack or index costs only what it lost", async () => {
  await withFiles(await images(), async (folder) => {
    (await open(folder)).source.close();
    const [pack] = packs(folder, ".pix");
    const size = (await Deno.stat(`${folder}/cache/${pack}`)).size;
    await Deno.truncate(`${folder}/cache/${pack}`, size - 1);
    const second = await open(folder);
    assertEquals(second.decodes, 1);
    await checkPixels(second.source);
    const index = `${folder}/cache/${packs(folder, ".idx")[0]}`;
    const lines = (await Deno.readTextFile(index)).split("\n");
    lines[2] = lines[2].replace(",", ",1"); // a flipped byte: its own checksum tells
    await Deno.writeTextFile(index, lines.slice(0, COUNT).join("\n").slice(0, -10)); // cut in the last line but one
    const third = await open(folder);
    assertEquals(third.decodes, 2);
    await checkPixels(third.source);
  });
});

Deno.test("damaged pixels are never handed out: the run stops by name, the next start decodes them again", async () => {
  await withFiles(await images(), async (folder) => {
    (await open(folder)).source.close();
    const [pack] = packs(folder, ".pix");
    using file = await Deno.open(`${folder}/cache/${pack}`, { write: true, read: true });
    await file.seek(10, Deno.SeekMode.Start);
    await file.write(Uint8Array.of(1, 2, 3));
    const { source } = await open(folder);
    const error = await assertRejects(() => source.readBatch([0, 1, 2, 3, 4, 5]), Error, "are damaged on disk");
    assertStringIncludes(error.message, "start again");
    source.close();
    const after = await open(folder);
    assertEquals(after.decodes, COUNT);
    await checkPixels(after.source);
  });
});

Deno.test("a damaged view is refused by name", async () => {
  await withFiles(await images(), async (folder) => {
    const { source } = await open(folder);
    source.close();
    const { view } = source.locator as { view: string };
    const bytes = await Deno.readFile(view);
    for (
      const damaged of [
        bytes.subarray(0, 100),
        bytes.map((byte, i) => i === 200 ? byte ^ 1 : byte),
        new Uint8Array(0),
      ]
    ) {
      await Deno.writeFile(view, damaged);
      await assertRejects(() => reopenPixels(source.locator), SyntaxError, "cut off or damaged");
    }
  });
});

Deno.test("unreadable images are remembered until their file changes, or on request", async () => {
  await withFiles({ ...await images(), "data/7.png": "broken" }, async (folder) => {
    const first = await open(folder);
    assertEquals([first.source.length, first.source.skipped.length], [COUNT, 1]);
    first.source.close();
    const second = await open(folder);
    assertEquals([second.decodes, second.source.skipped], [0, first.source.skipped]);
    assertEquals(second.events.filter((event) => event.type === "skipped").length, 1);
    second.source.close();
    const retried = await open(folder, { retry: true });
    assertEquals([retried.decodes, retried.source.skipped.length], [1, 1]);
    retried.source.close();
    await Deno.writeFile(`${folder}/data/7.png`, await png(10, 12, 8));
    const mended = await open(folder);
    assertEquals([mended.decodes, mended.source.length], [1, COUNT + 1]);
    await checkPixels(mended.source);
  });
});

Deno.test("a file that could not be read is tried again, though it is the same", async () => {
  await withFiles(await images(), async (folder) => {
    const locked: Decoder = {
      ...createDecoder(),
      decode: (image, options) => {
        if (String(image).endsWith("3.png")) throw new DecodeError("permission denied", true);
        return createDecoder().decode(image, options);
      },
    };
    const first = await open(folder, { decoder: locked });
    assertEquals(first.source.skipped, [{ id: "3.png", reason: "permission denied" }]);
    first.source.close();
    const second = await open(folder);
    assertEquals([second.decodes, second.source.length], [1, COUNT]);
    await checkPixels(second.source);
  });
});

Deno.test("the original size is kept while it fits the budget, else the shorter side is shrunk", async () => {
  const files = { "data/1.png": await png(40, 60), "data/2.png": await png(50, 50) };
  await withFiles(files, async (folder) => {
    const roomy = await open(folder, { crop: 15 });
    assertEquals([roomy.cache.shorterSide, roomy.cache.bytes], [null, (40 * 60 + 50 * 50) * 3]);
    roomy.source.close();
    const tight = await open(folder, { crop: 15, budget: 10_000 });
    assertEquals([tight.cache.shorterSide, tight.source.size(0)], [30, { height: 30, width: 45 }]);
    assertStringIncludes(tight.cache.reason, "more than 0.0 MB");
    tight.source.close();
    // 60 × 40 is far more than crops of 8 can use.
    const huge = await open(folder, { crop: 8 });
    assertEquals(huge.cache.shorterSide, 16);
    huge.source.close();
    const asked = await open(folder, { crop: 8, cacheSize: "original" });
    assertEquals(asked.cache.shorterSide, null);
    asked.source.close();
    for (const [budget, side] of [[undefined, null], [10_000, 16]] as const) {
      const fitting = await open(folder, { crop: 8, cacheSize: "fitting", budget });
      assertEquals(fitting.cache.shorterSide, side);
      fitting.source.close();
    }
    await assertRejects(
      () => open(folder, { cacheDirectory: undefined, cacheSize: "original", budget: 10_000 }),
      RangeError,
      "give a cache folder",
    );
  });
});

Deno.test("writers that share a folder do not disturb each other", async () => {
  await withFiles(await images(), async (folder) => {
    const opened = await Promise.all([open(folder), open(folder), open(folder)]);
    for (const { source } of opened) await checkPixels(source);
    const after = await open(folder);
    assertEquals(after.decodes, 0);
    await checkPixels(after.source);
  });
});

Deno.test("an aborted run keeps what it decoded; decoders that do not work skip nothing", async () => {
  await withFiles(await images(), async (folder) => {
    const controller = new AbortController();
    const decoder = createDecoder();
    let decodes = 0;
    const aborting: Decoder = {
      ...decoder,
      parallel: 1,
      decode(...args) {
        if (++decodes === 3) controller.abort(new Error("Ctrl-C"));
        return decoder.decode(...args);
      },
    };
    await assertRejects(() => open(folder, { decoder: aborting, signal: controller.signal }), Error, "Ctrl-C");
    const kept = (await readIndexes(`${folder}/cache`)).size;
    assert(kept >= 3, `${kept} images kept`);
    const after = await open(folder);
    assertEquals(after.decodes, COUNT - kept);
    await checkPixels(after.source);
    const broken: Decoder = { ...decoder, decode: () => Promise.reject(new DecoderFailure("no decoder")) };
    await assertRejects(() => open(folder, { decoder: broken, exif: false }), DecoderFailure, "no decoder");
  });
});

Deno.test("a run killed while it decodes leaves a cache that the next one completes", async () => {
  if (Deno.build.os === "windows") return console.log("skipped: there is no SIGKILL on Windows");
  await withFiles(await images(), async (folder) => {
    // A clock that jumps with every image, so that the writer flushes each; the process dies in the fifth.
    const script = `
      import { openPixels } from ${JSON.stringify(import.meta.resolve("../../../dino/data/open.ts"))};
      import { createDecoder } from ${JSON.stringify(import.meta.resolve("../../../dino/data/decode.ts"))};
      const decoder = createDecoder(), now = performance.now.bind(performance);
      let decodes = 0;
      performance.now = () => now() + 10_000 * decodes;
      await openPixels(${JSON.stringify(folder + "/data")}, {
        cacheDirectory: ${JSON.stringify(folder + "/cache")},
        decoder: { ...decoder, parallel: 1, decode(...args) {
          if (++decodes === 5) Deno.kill(Deno.pid, "SIGKILL");
          return decoder.decode(...args);
        } },
      });`;
    await Deno.writeTextFile(`${folder}/killed.ts`, script);
    const config = new URL(import.meta.resolve("../../../deno.json")).pathname;
    const { signal, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--no-check", "-A", "--config", config, `${folder}/killed.ts`],
    }).output();
    assertEquals(signal, "SIGKILL", new TextDecoder().decode(stderr));
    const kept = (await readIndexes(`${folder}/cache`)).size;
    assert(kept >= 1 && kept < COUNT, `${kept} images kept`);
    const after = await open(folder);
    assertEquals(after.decodes, COUNT - kept);
    await checkPixels(after.source);
  });
});
