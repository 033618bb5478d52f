// Decoder processes: same pixels as here, and images that crash, hang or bloat one cost themselves only.

import { DecoderPool } from "../../../cli/processes/decoder_pool.ts";
import { createDecoder, DecodeError } from "../../../dino/data/decode.ts";
import { DecoderFailure } from "../../../dino/data/decoder.ts";
import { openPixels } from "../../../dino/data/open.ts";
import { assert, assertEquals, assertRejects } from "../../assert.ts";
import { encode, png, smoothPixels, testPixels, withFiles } from "../../dino/data/make_images.ts";

Deno.test("a pool decodes as this process does, bytes and paths, sizes and errors", async () => {
  const decoder = createDecoder();
  const pool = new DecoderPool({ processes: 2 });
  try {
    const bytes = await png(37, 21);
    await withFiles({ "a.png": bytes, "empty.png": "" }, async (folder) => {
      const expected = await decoder.decode(bytes.slice());
      for (const image of [bytes, `${folder}/a.png`]) {
        assertEquals(await pool.decode(image), expected);
        assertEquals(await pool.measure(image), { height: 37, width: 21 });
      }
      assertEquals(await pool.decode(bytes, { shorterSide: 10 }), await decoder.decode(bytes, { shorterSide: 10 }));
      await assertRejects(() => pool.decode(`${folder}/empty.png`), DecodeError, "empty file");
      await assertRejects(() => pool.decode(`${folder}/none.png`), DecodeError, "no such file");
      const many = await Promise.all(Array.from({ length: 9 }, () => pool.decode(`${folder}/a.png`)));
      for (const image of many) assertEquals(image, expected);
    });
  } finally {
    await pool.close();
  }
  await assertRejects(() => pool.decode(new Uint8Array(1)), Error, "closed");
});

Deno.test("sharp's WebAssembly build gives the same pixels, and its warning stays inside", async () => {
  const before = Deno.env.get("DENODINO_SHARP");
  const images = [
    await png(20, 30),
    await encode(smoothPixels(20, 30), [20, 30, 3], (image) => image.jpeg()),
    await encode(smoothPixels(20, 30), [20, 30, 3], (image) => image.webp()),
    await encode(testPixels(20, 30), [20, 30, 3], (image) => image.gif()),
    await encode(testPixels(20, 30), [20, 30, 3], (image) => image.tiff()),
  ];
  Deno.env.set("DENODINO_SHARP", "wasm");
  const pool = new DecoderPool({ processes: 1 });
  try {
    for (const image of images) assertEquals(await pool.decode(image), await createDecoder().decode(image));
    await assertRejects(() => pool.decode(images[1].slice(0, 300)), DecodeError);
    const { stderr, stdout, code } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "-A", import.meta.resolve("../../../cli/processes/decoder.ts")],
      stdin: "null",
    }).output();
    assertEquals([new TextDecoder().decode(stderr), code], ["", 0]);
    assert(stdout.length > 8, "it said that it is ready");
  } finally {
    before === undefined ? Deno.env.delete("DENODINO_SHARP") : Deno.env.set("DENODINO_SHARP", before);
    await pool.close();
  }
});

Deno.test("decoders ignore Ctrl-C and end when their owner does", async () => {
  if (Deno.build.os === "windows") return console.log("skipped: Windows has no SIGINT for one process");
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "-A", import.meta.resolve("../../../cli/processes/decoder.ts")],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const output = child.stdout.getReader();
  await output.read(); // ready
  child.kill("SIGINT");
  const ended = await Promise.race([
    child.status.then(() => true),
    new Promise((resolve) => setTimeout(resolve, 200, false)),
  ]);
  assertEquals(ended, false);
  await child.stdin.close();
  assertEquals((await child.status).code, 0);
  await output.cancel();
});

/** A program that speaks the protocol and misbehaves as the request's path says. */
const FAKE = `
  import { readFrame, writeFrame } from ${
  JSON.stringify(import.meta.resolve("../../../cli/processes/decoder_protocol.ts"))
};
  const input = Deno.stdin.readable.getReader({ mode: "byob" });
  if (Deno.args[1] === "123") { console.error("cannot start"); Deno.exit(3); }
  await writeFrame(Deno.stdout, { ok: true, height: 0, width: 0 });
  for (;;) {
    const frame = await readFrame(input);
    if (!frame) Deno.exit(0);
    const { path } = frame.header;
    if (path.includes("victim")) {
      try {
        await Deno.remove(path); // it meets its killer once
        Deno.kill(Deno.pid, "SIGKILL");
      } catch { /* the second time */ }
    }
    if (path.includes("crash")) Deno.kill(Deno.pid, "SIGABRT");
    if (path.includes("exit")) Deno.exit(9);
    if (path.includes("bloat")) Deno.exit(77);
    if (path.includes("hang")) await new Promise(() => setInterval(() => {}, 1e6));
    await writeFrame(Deno.stdout, { ok: true, height: 1, width: 2 }, new Uint8Array(6));
  }`;

async function withFakeDecoder(use: (executable: string, folder: string) => Promise<void>): Promise<void> {
  const files: Record<string, string> = { "fake.ts": FAKE };
  for (const name of ["1.png", "crash.png", "2.png", "hang.png", "exit.png", "bloat.png", "3.png", "victim.png"]) {
    files[`data/${name}`] = name;
  }
  await withFiles(files, async (folder) => {
    const executable = `${folder}/decoder`;
    await Deno.writeTextFile(
      executable,
      `#!/bin/sh\nexec '${Deno.execPath()}' run --quiet -A --no-config '${folder}/fake.ts' "$@"\n`,
    );
    await Deno.chmod(executable, 0o755);
    await use(executable, folder);
  });
}

Deno.test("an image that crashes, hangs or bloats a decoder is skipped by name, the rest is decoded", async () => {
  if (Deno.build.os === "windows") return console.log("skipped: the misbehaving decoder is a shell script");
  await withFakeDecoder(async (executable, folder) => {
    const pool = new DecoderPool({ executable, processes: 2, timeout: 1.5 });
    try {
      // `measure` would meet the same files first: a size asked for in pixels still looks at them.
      const source = await openPixels(`${folder}/data`, { decoder: pool, cacheSize: "original" });
      assertEquals(Array.from({ length: source.length }, (_, i) => source.id(i)), [
        "1.png",
        "2.png",
        "3.png",
        "victim.png",
      ]);
      const reasons = Object.fromEntries(source.skipped.map(({ id, reason }) => [id, reason]));
      assertEquals(Object.keys(reasons).sort(), ["bloat.png", "crash.png", "exit.png", "hang.png"]);
      assert(reasons["crash.png"].includes("SIGABRT"), reasons["crash.png"]);
      assert(reasons["hang.png"].includes("longer than 1.5 s"), reasons["hang.png"]);
      assert(reasons["bloat.png"].includes("bytes of memory"), reasons["bloat.png"]);
      assert(reasons["exit.png"].includes("status 9"), reasons["exit.png"]);
    } finally {
      await pool.close();
    }
  });
});

Deno.test("a decoder that cannot start stops the run and skips nothing", async () => {
  if (Deno.build.os === "windows") return console.log("skipped: the misbehaving decoder is a shell script");
  await withFakeDecoder(async (executable, folder) => {
    const pool = new DecoderPool({ executable, processes: 2, memoryLimit: 123 });
    try {
      await assertRejects(() => openPixels(`${folder}/data`, { decoder: pool }), DecoderFailure, "cannot start");
    } finally {
      await pool.close();
    }
  });
});
