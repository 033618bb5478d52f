// Runs a program to its end for a test, and makes what the three ways of use train on.

import { assertEquals } from "../assert.ts";
import { encode, smoothPixels } from "../dino/data/make_images.ts";

/** How a program ended, and what it said. */
export interface Finished {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs a program; `env` replaces the environment but for what finding libraries needs. */
export async function run(
  program: string,
  args: readonly string[],
  { cwd, env }: { cwd?: string; env?: Record<string, string> } = {},
): Promise<Finished> {
  const { code, stdout, stderr } = await new Deno.Command(program, {
    args: [...args],
    cwd,
    env,
    clearEnv: env !== undefined,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  const decoder = new TextDecoder();
  return { code, out: decoder.decode(stdout), err: decoder.decode(stderr) };
}

/** A run of a few updates that fits any backend's patience: a transformer of width 24, crops of 16 and 8 pixels. */
export const TINY_FLAGS = [
  ..."--patch-size 4 --embed-dim 24 --depth 1 --num-heads 2 --out-dim 32 --head-hidden-dim 32".split(" "),
  ..."--head-bottleneck-dim 16 --global-crop-size 16 --local-crop-size 8 --local-crops-number 1".split(" "),
  ..."--batch-size 4 --epochs 1 --warmup-epochs 0 --limit 24 --log-every 1 --knn-every 0".split(" "),
];

/** Asserts that a run folder holds a finished run of so many updates, with finite losses. */
export async function assertTrained(folder: string, updates: number): Promise<void> {
  const rows = (await Deno.readTextFile(`${folder}/log.jsonl`)).trim().split("\n").map((line) => JSON.parse(line));
  const steps = rows.filter(({ kind }) => kind === "step");
  assertEquals(steps.length, updates);
  assertEquals(steps.every(({ loss }) => Number.isFinite(loss)), true, JSON.stringify(steps));
  const names = [...Deno.readDirSync(folder)].map(({ name }) => name);
  for (const name of ["config.json", "latest.safetensors", "report.html"]) {
    assertEquals(names.includes(name), true, `${name} among ${names}`);
  }
}

/** Photograph-like JPEGs of different sizes, in two class folders. */
export async function writeJpegs(folder: string, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const kind = i % 2 === 0 ? "even" : "odd", height = 20 + i, width = 31 - i % 5;
    await Deno.mkdir(`${folder}/${kind}`, { recursive: true });
    const jpeg = await encode(smoothPixels(height, width), [height, width, 3], (image) => image.jpeg());
    await Deno.writeFile(`${folder}/${kind}/${i}.jpg`, jpeg);
  }
}
