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

Deno.test("free space is told for folders that are not there yet", async () => {
  const free = await freeBytes("not/there/yet");
  assert(free !== undefined && free > 0, String(free));
});
