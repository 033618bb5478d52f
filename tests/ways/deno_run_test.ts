// First way of use: `deno run -A cli/train.ts`, with what a person at a terminal does to it.

import { assert, assertEquals, assertStringIncludes } from "../assert.ts";
import { HANG_UP_IS_IGNORED } from "../../cli/processes/signals.ts";
import { inFolder } from "../in_folder.ts";
import { assertTrained, run, TINY_FLAGS, writeJpegs } from "./process.ts";

const TRAIN = new URL("../../cli/train.ts", import.meta.url).pathname;
const deno = (args: readonly string[], cwd?: string) => run(Deno.execPath(), ["run", "-A", ...args], { cwd });

Deno.test("deno run: trains on the embedded sample, resumes, and says in which mode", () =>
  inFolder(async (folder) => {
    const first = await deno([TRAIN, ...TINY_FLAGS, "--backend", "wasm", "--out", "run", "--steps", "2"], folder);
    assertEquals(first.code, 0, first.err);
    assertStringIncludes(first.out, "computing on wasm: SIMD");
    await assertTrained(`${folder}/run`, 2);
    const again = await deno([TRAIN, "--backend", "wasm", "--out", "run"], folder);
    assertEquals(again.code, 2);
    assertStringIncludes(again.err, "--resume");
    const other = await deno([TRAIN, "--resume", "--out", "run", "--arch", "vit_base", "--reschedule"], folder);
    assertEquals(other.code, 2);
    assertStringIncludes(other.err, "is of another architecture");
    const resumed = await deno([TRAIN, "--resume", "--out", "run", "--json"], folder);
    assertEquals(resumed.code, 0, resumed.err);
    const events = resumed.out.trim().split("\n").map((line) => JSON.parse(line));
    assertEquals(events.find(({ type }) => type === "start").resumedAt, 2);
    await assertTrained(`${folder}/run`, 6);
  }));

Deno.test("deno run: trains on a folder of JPEGs, leaving out and naming what is none", () =>
  inFolder(async (folder) => {
    await writeJpegs(`${folder}/images`, 8);
    await Deno.writeFile(`${folder}/images/even/zero.jpg`, new Uint8Array(0));
    const { code, err } = await deno(
      [TRAIN, ...TINY_FLAGS, "--backend=wasm", "--data_path", "images", "--output_dir", "run", "--checked"],
      folder,
    );
    assertEquals(code, 0, err);
    assertStringIncludes(err, "zero.jpg");
    await assertTrained(`${folder}/run`, 2);
    const cached = [...Deno.readDirSync(`${folder}/run/cache`)].length;
    assert(cached > 0);
  }));

Deno.test("deno run: mistakes end with status 2, one line, and nothing written", () =>
  inFolder(async (folder) => {
    await Deno.mkdir(`${folder}/empty`);
    await Deno.mkdir(`${folder}/unreadable`);
    await Deno.writeTextFile(`${folder}/unreadable/a.jpg`, "no picture");
    const before = [...Deno.readDirSync(folder)].length;
    const cases: [string[], string][] = [
      [["--teacher-tmp", "1"], "unknown flag --teacher-tmp: did you mean --teacher-temp?"],
      [["--data", "nowhere"], "nowhere"],
      [["--data", "empty"], "no image file"],
      [["--data", "unreadable", "--batch-size", "1"], "unreadable"],
      [["--patch-size", "5", "--global-crop-size", "32"], "use --global-crop-size 30"],
      [["--batch-size", "5000"], "larger than the data set of 4000 images"],
      [["--dist_url", "env://"], "leave it out"],
    ];
    await Promise.all(cases.map(async ([flags, message], i) => {
      const { code, out, err } = await deno([TRAIN, ...flags, "--out", `run ${i}`], folder);
      assertEquals(code, 2, `${flags}: ${out}${err}`);
      assertStringIncludes(err, message);
      assert(!/^\s+at /m.test(err), `a stack: ${err}`);
    }));
    assertEquals([...Deno.readDirSync(folder)].length, before);
  }));

Deno.test({
  name:
    "deno run: Ctrl-C, SIGTERM and a closed terminal save, nohup goes on, a killed launcher leaves no trainer behind",
  ignore: Deno.build.os === "windows",
  fn: () =>
    inFolder(async (folder) => {
      const signals = [["SIGINT", 130], ["SIGTERM", 143], ["SIGHUP", 129], ["nohup", 143], ["SIGKILL", 137]] as const;
      for (const [signal, expected] of signals) {
        if (signal === "SIGHUP" && HANG_UP_IS_IGNORED) continue; // these tests run under nohup
        const out = `${folder}/${signal}`;
        const program = signal === "nohup" ? ["nohup", Deno.execPath()] : [Deno.execPath()];
        const child = new Deno.Command(program[0], {
          args: [
            ...program.slice(1),
            "run",
            "-A",
            TRAIN,
            ...TINY_FLAGS,
            "--backend=wasm",
            "--epochs=100000",
            "--json",
            "--out",
            out,
          ],
          stdin: "null",
          stdout: "piped",
          stderr: "null",
        }).spawn();
        let seen = "";
        const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
        while (!seen.includes('"type":"step"')) {
          const { value, done } = await reader.read();
          assert(!done, `ended before the first update: ${seen}`);
          seen += value;
        }
        if (signal === "nohup") {
          child.kill("SIGHUP");
          for (let more = 0; more < 3; more++) {
            assert(!(await reader.read()).done, "nohup: the run ended with its terminal");
          }
          child.kill("SIGTERM");
        } else child.kill(signal);
        assertEquals((await child.status).code, expected);
        await reader.cancel();
        if (signal === "SIGKILL") {
          await gone(`--out ${out}`);
        }
        // What was saved can be read, and what the log has beyond it is cut.
        const steps = JSON.parse(await lastLine(`${out}/log.jsonl`));
        assert(steps.kind === "end" || steps.kind === "step", JSON.stringify(steps));
        await Deno.stat(`${out}/latest.safetensors`);
      }
    }),
});

async function lastLine(path: string): Promise<string> {
  return (await Deno.readTextFile(path)).trim().split("\n").at(-1)!;
}

/** Waits until the trainer has seen that its launcher is gone: it writes the end of the run into the log. */
async function gone(out: string): Promise<void> {
  const path = `${out.replace("--out ", "")}/log.jsonl`;
  for (let tries = 0; tries < 200; tries++) {
    if ((await Deno.readTextFile(path)).includes('"kind":"end"')) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error("the trainer goes on without its launcher");
}
