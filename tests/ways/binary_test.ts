// Second way of use: a compiled binary, in an empty folder, with an empty home and no network.

import { assert, assertEquals, assertStringIncludes } from "../assert.ts";
import { convertWeights } from "../../models/weights/convert.ts";
import { toyFile } from "../models/weights/toy_vit.ts";
import { getCompileBase } from "../get_compile_base.ts";
import { inFolder } from "../in_folder.ts";
import { assertTrained, run, TINY_FLAGS, writeJpegs } from "./process.ts";

const ROOT = new URL("../../", import.meta.url);

/** Compiles both binaries with the Deno at hand or, where its base runtime cannot be had, with an older one. */
async function compile(out: string): Promise<string | undefined> {
  const script = new URL("cli/compile.ts", ROOT).pathname;
  const args = ["run", "-A", "--unstable-raw-imports", script, "--out", out];
  const direct = await run(Deno.execPath(), args);
  if (direct.code === 0) return;
  try {
    const { deno, denort } = await getCompileBase(new URL(".cache/compile_base", ROOT).pathname);
    const env = { ...Deno.env.toObject(), DENORT_BIN: denort, DENO_TLS_CA_STORE: "system" };
    const older = await run(deno, args, { env });
    return older.code === 0 ? undefined : older.err;
  } catch (error) {
    return `${(error as Error).message}\n${direct.err}`;
  }
}

const dist = await Deno.makeTempDir({ prefix: "denodino-binary-" });
globalThis.addEventListener("unload", () => Deno.removeSync(dist, { recursive: true }));
const obstacle = Deno.build.os === "windows" ? "the test's programs are for Unix" : await compile(dist);
if (obstacle) console.log(`binary: skipped, nothing could be compiled: ${obstacle}`);
const ignore = obstacle !== undefined;

/** Where the system lets us, without a network; in any case with nothing of this user's. */
async function alone(folder: string, args: readonly string[]) {
  const home = `${folder}/home`;
  await Deno.mkdir(home, { recursive: true });
  const env = { HOME: home, PATH: "/usr/bin:/bin", XDG_RUNTIME_DIR: home };
  const binary = `${dist}/dino`;
  return await cutOff
    ? run("unshare", ["-n", binary, ...args], { cwd: folder, env })
    : run(binary, args, { cwd: folder, env });
}
const cutOff = ignore ? false : await run("unshare", ["-n", "true"]).then(({ code }) => code === 0, () => false);
const hasGpu = await navigator.gpu?.requestAdapter() !== null;

Deno.test({
  name: "binary: trains on the embedded sample on both backends",
  ignore,
  fn: () =>
    inFolder(async (folder) => {
      for (const backend of hasGpu ? ["wasm", "webgpu"] : ["wasm"]) {
        const { code, out, err } = await alone(folder, [
          ...["train", ...TINY_FLAGS, "--backend", backend, "--out", backend, "--steps", "2"],
        ]);
        assertEquals(code, 0, err);
        assertStringIncludes(out, `computing on ${backend}`);
        await assertTrained(`${folder}/${backend}`, 2);
      }
    }),
});

Deno.test({
  name: "binary: decodes a folder of JPEGs, trains on it, evaluates it, and tells its mode",
  ignore,
  fn: () =>
    inFolder(async (folder) => {
      await writeJpegs(`${folder}/images`, 8);
      for (const mode of [[], ["--checked"]]) {
        const out = `run${mode.length}`;
        const { code, err } = await alone(folder, [
          ...["train", ...TINY_FLAGS, "--backend", "wasm", "--data", "images", "--out", out, ...mode],
        ]);
        assertEquals(code, 0, err);
        await assertTrained(`${folder}/${out}`, 2);
      }
      const knn = await alone(folder, ["knn", "run0", "--data", "images", "--backend", "wasm", "--json"]);
      assertEquals(knn.code, 0, knn.err);
      assertEquals(JSON.parse(knn.out).results[0].accuracies[0].k, 7); // one of eight is held out
      await Deno.mkdir(`${folder}/frames`);
      for (const i of [1, 2]) await Deno.copyFile(`${folder}/images/even/0.jpg`, `${folder}/frames/${i}.jpg`);
      const film = ["--data", "frames", "--video", "film.webp", "--image-size", "16", "--backend", "wasm", "--json"];
      const filmed = await alone(folder, ["attention", "run0", ...film]);
      assertEquals(filmed.code, 0, filmed.err);
      assertEquals(JSON.parse(filmed.out).images, 2);
      assertStringIncludes(await Deno.readTextFile(`${folder}/film.webp`), "ANMF"); // made inside, without ffmpeg
      const version = await alone(folder, ["--version"]);
      assertStringIncludes(version.out, "compiled turbo");
      const wrong = await alone(folder, ["trian"]);
      assert(wrong.code === 2 && wrong.err.includes("did you mean train?"), wrong.err);
    }),
});

Deno.test({
  name: "binary: converts weights, says what a file holds, and refuses what asks for code",
  ignore,
  fn: () =>
    inFolder(async (folder) => {
      await convertWeights(await toyFile(), `${folder}/weights.pth`, { format: "pytorch" });
      const written = await alone(folder, ["convert", "weights.pth", "weights.onnx", "--num-heads", "3"]);
      assertEquals(written.code, 0, written.err);
      assertStringIncludes(written.out, "30 tensors");
      const told = await alone(folder, ["inspect", "weights.onnx", "--json"]);
      assertEquals(told.code, 0, told.err);
      const { layout, tensors } = JSON.parse(told.out);
      assertStringIncludes(layout.join(), "48 wide, 2 blocks, 3 heads, patches of 8");
      assertEquals(tensors.length, 30);
      // A pickle that would call os.system.
      const malice = "\x80\x02cposix\nsystem\nX\x02\x00\x00\x00ls\x85R.";
      await Deno.writeFile(`${folder}/malice.pth`, Uint8Array.from(malice, (c) => c.charCodeAt(0)));
      const refused = await alone(folder, ["inspect", "malice.pth"]);
      assertEquals(refused.code, 2);
      assertStringIncludes(refused.err, "posix");
    }),
});
