// Runs commands of this project as a person would, and reads what they print as JSON.

import { headConfig } from "../../models/dino_head.ts";
import { initialParameters } from "../../models/init.ts";
import { backboneShapes } from "../../models/backbone.ts";
import { writeSafetensors } from "../../models/weights/safetensors.ts";
import { VIT_KEY } from "../../models/weights/vit_weights.ts";
import { readTrainingState } from "../../dino/run/checkpoint.ts";
import { loadWeights } from "../../dino/load_weights.ts";
import { weightsPath } from "../../cli/terminal/weights_path.ts";

/** What a command prints with --json. */
// deno-lint-ignore no-explicit-any
export type Printed = any;

/** Runs `dino` with these words; what it says besides goes to the terminal. */
export async function dino(...words: string[]): Promise<Printed> {
  console.error(`dino ${words.join(" ")}`);
  const { code, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", import.meta.resolve("../../cli/main.ts"), ...words, "--json"],
    stderr: "inherit",
  }).output();
  if (code !== 0) throw new Error(`dino ${words[0]}: ended with ${code}`);
  const lines = new TextDecoder().decode(stdout).trim().split("\n");
  return JSON.parse(lines.at(-1)!);
}

/** Trains unless the run is there already. */
export async function trainOnce(out: string, ...flags: string[]): Promise<string> {
  const done = await Deno.stat(`${out}/report.html`).then(() => true, () => false);
  if (!done) {
    const { code } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--quiet", import.meta.resolve("../../cli/main.ts"), "train", "--out", out, ...flags],
      stdout: "inherit",
      stderr: "inherit",
    }).output();
    if (code !== 0) throw new Error(`dino train: ended with ${code}`);
  }
  return out;
}

/** Writes the network that a run began with: what training is compared to. */
export async function writeUntrained(run: string, path: string): Promise<string> {
  const checkpoint = await weightsPath(run);
  const { backbone } = await loadWeights(checkpoint);
  const { config } = await readTrainingState(checkpoint);
  const head = headConfig({ inDim: backbone.embedDim, outDim: 2 });
  const drawn = initialParameters({ backbone, head }, config.seed, config.initStd);
  const tensors = backboneShapes(backbone).map(([name, shape]) => {
    const { buffer, byteOffset, byteLength } = drawn.get(`backbone.${name}`) as Float32Array<ArrayBuffer>;
    return { name, dtype: "F32" as const, shape, bytes: () => new Uint8Array(buffer, byteOffset, byteLength) };
  });
  await writeSafetensors(path, tensors, { [VIT_KEY]: JSON.stringify(backbone) });
  return path;
}
