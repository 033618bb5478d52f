// `dino throughput`: images a second and memory over architectures and patch sizes; runs directly too.

import { VIT_SIZES, vitConfig } from "../models/vit.ts";
import { writeTextAtomically } from "../models/weights/atomic_file.ts";
import { measureThroughput, type Throughput } from "../dino/eval/throughput.ts";
import { integer, integers, number, text } from "../dino/field.ts";
import { type EvaluationCommand, runEvaluation } from "./evaluation.ts";
import { givenArguments } from "./mode.ts";
import { throughputPlot } from "./report/throughput_plot.ts";
import { formatBytes } from "./std.ts";

const fields = {
  arch: text("vit_tiny,vit_small,vit_base", "architectures, with commas between them"),
  patchSizes: integers([16, 8], "sides of a patch; the paper measures 16, 8 and 5", { min: 1 }),
  imageSize: integer(224, "side of an image", { min: 1, unit: "pixels" }),
  batchSize: integer(16, "images of one pass; the paper takes 128", { min: 1, unit: "images" }),
  seconds: number(3, "of measuring for each", { above: 0 }),
  plot: text(null, "file for a plot, .svg"),
};

/** A row of the table. */
export interface ThroughputRow extends Throughput {
  readonly arch: string;
  readonly patchSize: number;
}

/** The command. */
export const command: EvaluationCommand<typeof fields> = {
  name: "throughput",
  usage: "throughput [flags]",
  about:
    "Measures forward passes on this machine: images a second and peak memory of each architecture and patch size.",
  weightless: true,
  fields,
  sources: () => ({}),
  prepare: ({ arch, plot, patchSizes, imageSize }) => {
    architectures(arch);
    if (plot !== null && !plot.endsWith(".svg")) throw new RangeError(`--plot ${plot}: name an .svg file`);
    const large = patchSizes.find((patch) => patch > imageSize);
    if (large !== undefined) throw new RangeError(`--patch-sizes ${large}: is larger than an image of ${imageSize}`);
    return Promise.resolve();
  },
  async evaluate({ backend, signal, progress, notice }, flags) {
    const rows: ThroughputRow[] = [];
    const archs = architectures(flags.arch);
    for (const arch of archs) {
      for (const patchSize of flags.patchSizes) {
        const { imageSize, batchSize: batch, seconds } = flags;
        const config = vitConfig({ ...VIT_SIZES[arch], patchSize, imageSize });
        const measured = await measureThroughput(backend, config, { imageSize, batch, seconds, signal });
        rows.push({ arch, patchSize, ...measured });
        progress("architectures", rows.length, archs.length * flags.patchSizes.length);
      }
    }
    notice(`batch of ${flags.batchSize}, images of ${flags.imageSize} pixels, on ${backend.description}`);
    if (flags.plot !== null) await writeTextAtomically(flags.plot, throughputPlot(rows, backend.description));
    const cell = (value: string, width: number) => value.padStart(width);
    return {
      value: { device: backend.description, batch: flags.batchSize, imageSize: flags.imageSize, rows },
      lines: [
        "architecture    patch  parameters  tokens  GFLOP  images/s  GFLOP/s     memory",
        ...rows.map((r) =>
          `${r.arch.padEnd(14)}${cell(String(r.patchSize), 7)}${cell(`${(r.parameters / 1e6).toFixed(1)} M`, 12)}` +
          `${cell(String(r.tokens), 8)}${cell(r.gflops.toFixed(1), 7)}${cell(r.imagesPerSecond.toFixed(1), 10)}` +
          `${cell((r.gflops * r.imagesPerSecond).toFixed(0), 9)}${cell(formatBytes(r.peakBytes), 11)}`
        ),
        ...flags.plot === null ? [] : [`${flags.plot}: plot`],
      ],
    };
  },
};

function architectures(text: string): (keyof typeof VIT_SIZES)[] {
  return text.split(",").map((part) => {
    const name = part.trim().replace(/^deit_/, "vit_");
    if (!Object.hasOwn(VIT_SIZES, name)) {
      throw new RangeError(`--arch ${part}: is not one of ${Object.keys(VIT_SIZES).join(", ")}`);
    }
    return name as keyof typeof VIT_SIZES;
  });
}

/** Runs the command; returns its exit status. */
export const main = (words: readonly string[]): Promise<number> => runEvaluation(command, words);

if (import.meta.main) Deno.exit(await main(givenArguments()));
