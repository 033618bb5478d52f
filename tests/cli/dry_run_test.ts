// --dry-run: the plan as a person and as a program reads it, and nothing written.

import { encodePng } from "../../cli/report/png.ts";
import { freeBytes } from "../../dino/data/disk_space.ts";
import { assert, assertEquals } from "../assert.ts";
import { inFolder } from "../in_folder.ts";
import { run } from "../ways/process.ts";

const TRAIN = new URL("../../cli/train.ts", import.meta.url).pathname;

Deno.test("dry run: says what a run takes on the disk, and writes nothing", () =>
  inFolder(async (folder) => {
    const flags = [
      "run",
      "-A",
      TRAIN,
      "--dry-run",
      "--backend=wasm",
      "--epochs=7",
      "--saveckp-freq=2",
      "--out",
      "new/run",
    ];
    const [json, text] = await Promise.all([
      run(Deno.execPath(), [...flags, "--json"], { cwd: folder }),
      run(Deno.execPath(), flags, { cwd: folder }),
    ]);
    assertEquals([json.code, text.code], [0, 0], json.err + text.err);
    const { disk } = JSON.parse(json.out);
    assertEquals([disk.kept, disk.cache, disk.total], [3, 0, 5 * disk.checkpoint]);
    assert(disk.checkpoint > 7e6 && disk.free > 0, JSON.stringify(disk));
    assert(/^disk:\n.*latest checkpoint.*\n +3 that stay/m.test(text.out), text.out);
    assertEquals([...Deno.readDirSync(folder)], []);
  }));

Deno.test("dry run: an arch that is given replaces the widths of preset and file, and flags replace the arch's", () =>
  inFolder(async (folder) => {
    const file = `${folder}/run.json`;
    const small = { embedDim: 96, depth: 3, numHeads: 3 };
    await Deno.writeTextFile(file, JSON.stringify({ config: { arch: "vit_small", batchSize: 8, ...small } }));
    const extents = async (...flags: string[]) => {
      const { code, out, err } = await run(Deno.execPath(), ["run", "-A", TRAIN, "--dry-run", "--json", ...flags]);
      assertEquals(code, 0, err);
      const { arch, embedDim, depth, numHeads } = JSON.parse(out).config;
      return [arch, embedDim, depth, numHeads];
    };
    const cases: [string[], unknown[]][] = [
      [["--backend=wasm"], ["vit_tiny", 96, 3, 3]],
      [["--backend=wasm", "--arch=vit_tiny"], ["vit_tiny", null, null, null]],
      [["--backend=wasm", "--preset=sample", "--arch=vit_small", "--depth=2"], ["vit_small", null, 2, null]],
      [["--backend=wasm", `--config=${file}`], ["vit_small", 96, 3, 3]],
      [["--backend=wasm", `--config=${file}`, "--arch=vit_tiny"], ["vit_tiny", null, null, null]],
    ];
    for (const [flags, expected] of cases) assertEquals(await extents(...flags), expected, `${flags}`);
  }));

Deno.test("dry run: pictures that are not decoded are told, as training tells them", () =>
  inFolder(async (folder) => {
    for (const name of ["a.png", "b.png"]) {
      await Deno.writeFile(`${folder}/${name}`, encodePng(new Uint8Array(32 * 32 * 3), 32, 32));
    }
    for (const name of ["c.bmp", "d.dcm", "e.bmp"]) await Deno.writeTextFile(`${folder}/${name}`, "");
    const flags = ["--dry-run", "--backend=wasm", "--arch=vit_tiny", "--batch-size=2", "--json", "--data", folder];
    const { code, out, err } = await run(Deno.execPath(), ["run", "-A", TRAIN, ...flags]);
    assertEquals(code, 0, err);
    assertEquals(JSON.parse(out).type, "plan");
    assert(err.includes(`${folder}: left out, because they are not decoded: 2 .bmp, 1 .dcm`), err);
  }));

Deno.test("dry run: what WebAssembly cannot address is said, with what fits, or that nothing does", () =>
  inFolder(async (folder) => {
    const png = encodePng(new Uint8Array(32 * 32 * 3), 32, 32);
    for (let i = 0; i < 64; i++) await Deno.writeFile(`${folder}/${i}.png`, png);
    const flags = ["run", "-A", TRAIN, "--dry-run", "--backend=wasm", "--batch-size=64", "--data", folder];
    const sizes = ["--global-crop-size=224", "--local-crop-size=96"];
    const [base, large] = await Promise.all(
      ["vit_base", "vit_large"].map((arch) => run(Deno.execPath(), [...flags, ...sizes, `--arch=${arch}`])),
    );
    assertEquals([base.code, large.code], [0, 0], base.err + large.err);
    assert(
      /does not fit; what does: --accumulate \d+, or --crop-chunk \d+, or --batch-size \d+/.test(base.err),
      base.err,
    );
    assert(/does not fit; not even a batch of one image fits/.test(large.err), large.err);
  }));

Deno.test("free space is told for folders that are not there yet", async () => {
  const free = await freeBytes("not/there/yet");
  assert(free !== undefined && free > 0, String(free));
});
