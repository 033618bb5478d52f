// `dino throughput`: images a second and memory over architectures and patch sizes; runs directly too.

import type { BackboneConfig } from "../models/backbone.ts";
import { RESNET_SIZES, resnetConfig } from "../models/resnet.ts";
import { VIT_SIZES, vitConfig } from "../models/vit.ts";
import { xcitConfig } from "../models/xcit.ts";
import { writeTextAtomically } from "../models/weights/atomic_file.ts";
import { isXcit, xcitOf } from "../dino/config/architecture.ts";
import { XCIT_ARCHES } from "../dino/config.ts";
import { measureThroughput, type Throughput } from "../dino/eval/throughput.ts";
import { integer, integers, number, text } from "../dino/config/field.ts";
import { runEvaluation } from "./evaluation/run.ts";
import type { EvaluationCommand } from "./evaluation/command.ts";
import { givenArguments } from "./processes/mode.ts";
import { throughputPlot } from "./report/throughput_plot.ts";
import { formatBytes } from "./terminal/std.ts";

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
  /** Null for networks without patches. */
  readonly patchSize: number | null;
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
    const total = archs.reduce((sum, arch) => sum + variants(arch, flags.patchSizes, flags.imageSize).length, 0);
    for (const arch of archs) {
      const { imageSize, batchSize: batch, seconds } = flags;
      for (const { patchSize, config } of variants(arch, flags.patchSizes, imageSize)) {
        const measured = await measureThroughput(backend, config, { imageSize, batch, seconds, signal });
        rows.push({ arch, patchSize, ...measured });
        progress("architectures", rows.length, total);
      }
    }
    const setting = `batch of ${flags.batchSize}, images of ${flags.imageSize} pixels, on ${backend.description}`;
    notice(setting);
    if (flags.plot !== null) await writeTextAtomically(flags.plot, throughputPlot(rows, setting));
    const cell = (value: string, width: number) => value.padStart(width);
    return {
      value: { device: backend.description, batch: flags.batchSize, imageSize: flags.imageSize, rows },
      lines: [
        "architecture    patch  parameters  tokens  GFLOP  images/s  GFLOP/s     memory",
        ...rows.map((r) =>
          `${r.arch.padEnd(14)}${cell(String(r.patchSize ?? "-"), 7)}${
            cell(`${(r.parameters / 1e6).toFixed(1)} M`, 12)
          }` +
          `${cell(String(r.tokens), 8)}${cell(r.gflops.toFixed(1), 7)}${cell(r.imagesPerSecond.toFixed(1), 10)}` +
          `${cell((r.gflops * r.imagesPerSecond).toFixed(0), 9)}${cell(formatBytes(r.peakBytes), 11)}`
        ),
        ...flags.plot === null ? [] : [`${flags.plot}: plot`],
      ],
    };
  },
};

function architectures(text: string): string[] {
  return text.split(",").map((part) => {
    const name = part.trim().replace(/^deit_/, "vit_");
    const known = [...Object.keys({ ...VIT_SIZES, ...RESNET_SIZES }), ...XCIT_ARCHES];
    if (known.includes(name)) return name;
    throw new RangeError(`--arch ${part}: is not one of ${known.join(", ")}`);
  });
}

/** What is measured of an architecture: each patch size, or the one that the arch has. */
function variants(
  arch: string,
  patchSizes: readonly number[],
  imageSize: number,
): { patchSize: number | null; config: BackboneConfig }[] {
  if (Object.hasOwn(RESNET_SIZES, arch)) {
    const size = RESNET_SIZES[arch as keyof typeof RESNET_SIZES];
    return [{ patchSize: null, config: resnetConfig({ ...size, imageSize }) }];
  }
  if (isXcit(arch)) {
    const size = xcitOf(arch);
    return [{ patchSize: size.patchSize, config: xcitConfig({ ...size, imageSize }) }];
  }
  const size = VIT_SIZES[arch as keyof typeof VIT_SIZES];
  return patchSizes.map((patchSize) => ({ patchSize, config: vitConfig({ ...size, patchSize, imageSize }) }));
}

/** Runs the command; returns its exit status. */
export const main = (words: readonly string[]): Promise<number> => runEvaluation(command, words);

if (import.meta.main) Deno.exit(await main(givenArguments()));
