// Third way of use: a program outside the repository that imports mod.ts over HTTP, with an empty cache.

import { assertEquals, assertStringIncludes } from "../assert.ts";
import { convertWeights } from "../../models/weights/convert.ts";
import { toyFile } from "../models/weights/toy_vit.ts";
import { inFolder } from "../in_folder.ts";
import { assertTrained, run, TINY_FLAGS, writeJpegs } from "./process.ts";

const ROOT = new URL("../../", import.meta.url);

/** Deno goes by the type a server names; the wrong one (video/mp2t for .ts) is what some servers send. */
const TYPES: Readonly<Record<string, string>> = {
  ts: "application/typescript",
  js: "text/javascript",
  json: "application/json",
};

function serveRepository(): Deno.HttpServer<Deno.NetAddr> {
  return Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, async (request) => {
    const { pathname } = new URL(request.url);
    try {
      const type = TYPES[pathname.split(".").at(-1)!] ?? "text/plain";
      return new Response(await Deno.readFile(new URL(`.${pathname}`, ROOT)), { headers: { "content-type": type } });
    } catch {
      return new Response("not found", { status: 404 });
    }
  });
}

const PROGRAM = (host: string) => `
import { defaultConfig, openWasm, pixelsFromMemory, train } from "http://${host}/mod.ts";

const side = 16, count = 12;
const data = Uint8Array.from({ length: count * side * side * 3 }, (_, i) => (i * 37) % 256);
const backend = await openWasm({ threads: 2 });
const { step } = await train({
  ...defaultConfig(),
  patchSize: 4, embedDim: 24, depth: 1, numHeads: 2, outDim: 32, headHiddenDim: 32, headBottleneckDim: 16,
  globalCropSize: 16, localCropSize: 8, localCropsNumber: 1, batchSize: 4, epochs: 1, warmupEpochs: 0, steps: 1,
}, { backend, data: pixelsFromMemory({ name: "stripes", height: side, width: side, channels: 3, data }) });
await backend.close();
console.log("updates:", step);
`;

const LOOK = (host: string) => `
import { loadPretrained, openWasm } from "http://${host}/mod.ts";

const backend = await openWasm({ threads: 2 });
const vit = await loadPretrained("weights.pth", { backend, config: { numHeads: 3 } });
const [features] = await vit.features(["images/CLASS/FILE"]);
console.log("features:", features.length);
const { maps, gridHeight, gridWidth } = await vit.attention("images/CLASS/FILE", { shorterSide: 32 });
const head = maps.subarray(0, gridHeight * gridWidth), most = Math.max(...head);
const shade = (x: number) => " .:-=+*#%@"[Math.floor(9 * x / most)];
for (let y = 0; y < gridHeight; y++) console.log(\`|\${[...head.subarray(y * gridWidth, (y + 1) * gridWidth)].map(shade).join("")}|\`);
vit.dispose();
await backend.close();
`;

Deno.test("import over HTTP: ten lines load weights, extract features and draw what a head looks at", () =>
  inFolder(async (folder) => {
    const server = serveRepository();
    try {
      await convertWeights(await toyFile(), `${folder}/weights.pth`, { format: "pytorch" });
      await writeJpegs(`${folder}/images`, 1);
      const path = await firstFile(`${folder}/images`);
      const program = LOOK(`127.0.0.1:${server.addr.port}`).replaceAll("images/CLASS/FILE", path);
      await Deno.writeTextFile(`${folder}/look.ts`, program);
      const env = { ...Deno.env.toObject(), DENO_DIR: `${folder}/cache`, DENO_NO_PACKAGE_JSON: "1" };
      const { code, out, err } = await run(Deno.execPath(), ["run", "-A", "look.ts"], { cwd: folder, env });
      assertEquals(code, 0, err);
      assertStringIncludes(out, "features: 48");
      const rows = out.split("\n").filter((line) => /^\|[ .:=+*#%@-]+\|$/.test(line));
      assertEquals([rows.length >= 4, rows.some((row) => row.includes("@"))], [true, true], out);
    } finally {
      await server.shutdown();
    }
  }));

async function firstFile(folder: string): Promise<string> {
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    return isDirectory ? await firstFile(`${folder}/${name}`) : `${folder}/${name}`;
  }
  throw new Error(`${folder} is empty`);
}

Deno.test("import over HTTP: a program elsewhere, with an empty cache, trains an update", () =>
  inFolder(async (folder) => {
    const server = serveRepository();
    try {
      const host = `127.0.0.1:${server.addr.port}`;
      await Deno.writeTextFile(`${folder}/program.ts`, PROGRAM(host));
      const env = { ...Deno.env.toObject(), DENO_DIR: `${folder}/cache`, DENO_NO_PACKAGE_JSON: "1" };
      const library = await run(Deno.execPath(), ["run", "-A", "program.ts"], { cwd: folder, env });
      assertEquals(library.code, 0, library.err);
      assertStringIncludes(library.out, "updates: 1");
      // The command line too: it starts its other processes, decoders among them, from the same address.
      await writeJpegs(`${folder}/images`, 8);
      const flags = [...TINY_FLAGS, "--backend", "wasm", "--data", "images", "--out", "run"];
      const url = `http://${host}/cli/train.ts`;
      const command = await run(Deno.execPath(), ["run", "-A", url, ...flags], { cwd: folder, env });
      assertEquals(command.code, 0, command.err);
      await assertTrained(`${folder}/run`, 2);
    } finally {
      await server.shutdown();
    }
  }));
