// `dino bench`: measures kernels, updates and decoding on this machine; runs directly too.

import { deviceFields, modelFields, VERBOSE_ADVICE } from "../dino/config.ts";
import { boolean, choice, type Field, integer, number, text } from "../dino/config/field.ts";
import { nearestName } from "../dino/config/nearest_name.ts";
import { decodeRows } from "./bench/decode.ts";
import { RECOMPUTATIONS } from "./bench/recomputation.ts";
import { type BenchSizes, USUAL_SIZES } from "./bench/sizes.ts";
import { EXIT_FAILURE, exitStatus } from "./terminal/failure.ts";
import { type FlagGroup, parseFlags } from "./terminal/flags.ts";
import { helpText } from "./terminal/help.ts";
import { launch } from "./processes/launch.ts";
import { type BenchJob, type BenchRow, type DeviceChoice, deviceOf } from "./processes/messages.ts";
import { givenArguments } from "./processes/mode.ts";
import { Progress } from "./terminal/progress.ts";

const NAMES = [
  "gemm",
  "attention",
  "norm",
  "loss",
  "optimizer",
  "prologues",
  "step",
  "forward",
  "augment",
  "knn",
  "decode",
];
/** Every benchmark, on a graphics card at the sizes of the paper, and what the device and its tuner are. */
const EVERYTHING = "all";
/** Of `all`: with Deno's start and what one case may take past it, under ten. */
const ALL_MINUTES = 8;

const { arch, patchSize, batchSize, outDim } = USUAL_SIZES;
const sizes = {
  arch: { ...modelFields.arch, default: arch },
  patchSize: { ...modelFields.patchSize, default: patchSize },
  batchSize: integer(batchSize, "images", { min: 1, unit: "images" }),
  crops: text("2x224+8x96", "crops of a step: 2xSIZE, or 2xSIZE+NxSIZE"),
  outDim: { ...modelFields.outDim, default: outDim },
  inARow: integer(
    1,
    "products of each `gemm` in one program, as an update has them: alone, waking the threads counts too",
    {
      min: 1,
      unit: "products",
    },
  ),
};
const { backend, adapter, threads, webgpu, precision } = deviceFields;
const command = {
  quick: boolean(false, "tiny sizes: only to see that everything runs"),
  seconds: number(2, "time for each measurement, at least three runs of it", { above: 0, unit: "seconds" }),
  minutes: number(
    null,
    `measure nothing more after so long, and say what is left out; \`${EVERYTHING}\`: ${ALL_MINUTES}`,
    {
      above: 0,
      unit: "minutes",
    },
  ),
  prologues: choice(
    ["auto", "none", "saving", "all"],
    "auto",
    "on WebGPU, which operations products compute as they read their operands: to compare updates; auto: what pays on the adapter",
  ),
  recompute: choice(
    ["auto", ...RECOMPUTATIONS],
    "auto",
    "what an update computes again: as for training, or normalised rows and GELUs only, or these and a share of the blocks",
  ),
  profile: boolean(false, "tell how long each kind of operation takes"),
  checked: boolean(false, "keep WebAssembly's bounds checks"),
  json: boolean(false, "print an array of rows as JSON"),
  quiet: boolean(false, "print the rows only"),
  verbose: boolean(false, VERBOSE_ADVICE),
};
const GROUPS: readonly FlagGroup[] = [
  { title: "Sizes", fields: sizes },
  { title: "Device", fields: { backend, adapter, threads, webgpu, precision } },
  { title: "Command", fields: command },
];

type Values<F> = { readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never };
type BenchFlags = Values<typeof sizes & typeof command> & DeviceChoice;

/** Runs the command; returns its exit status. */
export async function main(words: readonly string[]): Promise<number> {
  return await exitStatus("bench", () => bench(words));
}

async function bench(words: readonly string[]): Promise<number> {
  const { given, positional, help } = parseFlags(words, GROUPS);
  if (help) {
    console.log(helpText({
      usage: `bench [${EVERYTHING} | ${NAMES.join(" | ")}]… [flags]`,
      about: "Measures what is named, or each of them. Ratios are to a roofline measured in the same run: the most " +
        "multiply-adds that the same device does on registers alone, or the fastest copy, whichever bounds a kernel. " +
        `\`${EVERYTHING} --backend webgpu\` measures a graphics card: ViT-S/16, batch 64, K = 65536, ImageNet's features, ` +
        "with device, memory and tuned kernels; in under ten minutes.",
      groups: GROUPS,
    }));
    return 0;
  }
  for (const name of positional) {
    if (name === EVERYTHING || NAMES.includes(name)) continue;
    const nearest = nearestName(name, [...NAMES, EVERYTHING]);
    throw new RangeError(
      `unknown benchmark ${name}: ${
        nearest ? `did you mean ${nearest}?` : `there are ${EVERYTHING}, ${NAMES.join(", ")}`
      }`,
    );
  }
  const defaults = Object.assign(
    {},
    ...GROUPS.map(({ fields }) =>
      Object.fromEntries(Object.entries(fields).map(([key, field]) => [key, field.default]))
    ),
  );
  const flags = { ...defaults, ...given } as BenchFlags;
  const everything = positional.includes(EVERYTHING);
  const names = positional.length > 0 && !everything ? NAMES.filter((name) => positional.includes(name)) : NAMES;
  const progress = new Progress({ command: "bench", json: false, quiet: flags.quiet || flags.json });
  const rows: BenchRow[] = [];
  const show = (row: BenchRow) => {
    rows.push(row);
    if (!flags.json) progress.result(rowText(row));
  };
  let code = 0;
  if (names.some((name) => name !== "decode")) {
    code = await launch(jobOf(names, flags, given, everything), {
      checked: flags.checked,
      onNotice: (message) => progress.warn(message),
      onEvent: (event) => {
        if (event.type === "bench") show(event.row);
        else if (event.type === "profile") {
          for (const { name, milliseconds, share } of flags.json ? [] : event.rows.slice(0, 20)) {
            progress.result(
              `    ${(100 * share).toFixed(1).padStart(5)} %  ${milliseconds.toFixed(2).padStart(9)} ms  ${name}`,
            );
          }
        } else progress.show(event);
      },
    });
  }
  if ((code === 0 || everything) && names.includes("decode")) {
    try {
      for await (const row of decodeRows(flags.seconds)) show(row);
    } catch (error) {
      if (!everything) throw error;
      progress.warn(`decode: left out, ${(error as Error).message}`); // a machine without network or cache has no decoder
    }
  }
  if (flags.json) console.log(JSON.stringify(rows, null, 2));
  return code === 0 && rows.some(({ failed }) => failed) ? EXIT_FAILURE : code;
}

function jobOf(
  names: readonly string[],
  flags: BenchFlags,
  given: Readonly<Record<string, unknown>>,
  everything: boolean,
): BenchJob {
  const crops = /^2x(\d+)(?:\+(\d+)x(\d+))?$/.exec(flags.crops);
  if (!crops) throw new RangeError(`--crops ${flags.crops}: write 2x224 or 2x224+8x96`);
  const [, globalCropSize, localCropsNumber = "0", localCropSize = globalCropSize] = crops;
  const asked: Partial<BenchSizes> = {
    arch: flags.arch,
    patchSize: flags.patchSize,
    batchSize: flags.batchSize,
    globalCropSize: Number(globalCropSize),
    localCropSize: Number(localCropSize),
    localCropsNumber: Number(localCropsNumber),
    outDim: flags.outDim,
    inARow: flags.inARow,
  };
  return {
    command: "bench",
    device: deviceOf(flags),
    names,
    sizes: Object.fromEntries(
      Object.entries(asked).filter(([key]) => key in given || "crops" in given && /Crop/.test(key)),
    ),
    everything,
    quick: flags.quick,
    seconds: flags.seconds,
    minutes: flags.minutes ?? (everything ? ALL_MINUTES : null),
    prologues: flags.prologues === "auto" ? undefined : flags.prologues,
    recompute: flags.recompute as BenchJob["recompute"],
    profile: flags.profile,
  };
}

function rowText(row: BenchRow): string {
  const parts: string[] = [];
  const add = (value: number | undefined, text: (value: number) => string) => {
    if (value !== undefined) parts.push(text(value));
  };
  add(row.median_ms, (ms) => row.p10_ms === undefined ? `${ms} ms` : `${ms} ms (${row.p10_ms}–${row.p90_ms})`);
  add(row.kernel_ms, (ms) => `${ms} ms of kernels`);
  add(row.gflops, (gflops) => `${gflops} GFLOP/s`);
  add(row.gbytes_per_second, (gbytes) => `${gbytes} GB/s`);
  add(row.roofline_ratio, (ratio) => `${(100 * ratio).toFixed(0)} % of roofline`);
  add(row.images_per_second, (images) => `${images} images/s`);
  add(row.host_share, (share) => `JavaScript ${(100 * share).toFixed(1)} %`);
  if (row.name === "step") add(row.memory_mb, (mb) => `${mb} MB`);
  return `${row.name.padEnd(10)}${parts.join(", ")}  ${row.shape}${row.note ? ` (${row.note})` : ""}`;
}

if (import.meta.main) Deno.exit(await main(givenArguments()));
