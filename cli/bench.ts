// `dino bench`: measures kernels, updates and decoding on this machine; runs directly too.

import { deviceFields, modelFields } from "../dino/config.ts";
import { boolean, type Field, integer, number, text } from "../dino/field.ts";
import { nearestName } from "../dino/flags.ts";
import { decodeRows } from "./bench/decode.ts";
import { exitStatus } from "./failure.ts";
import { type FlagGroup, parseFlags } from "./flags.ts";
import { helpText } from "./help.ts";
import { launch } from "./launch.ts";
import type { BenchJob, BenchRow, DeviceChoice } from "./messages.ts";
import { givenArguments } from "./mode.ts";
import { Progress } from "./progress.ts";

const NAMES = ["gemm", "attention", "step", "forward", "augment", "knn", "decode"];

const sizes = {
  arch: { ...modelFields.arch, default: "vit_tiny" },
  patchSize: modelFields.patchSize,
  batchSize: integer(4, "images", { min: 1, unit: "images" }),
  crops: text("2x224+8x96", "crops of a step: 2xSIZE, or 2xSIZE+NxSIZE"),
  outDim: { ...modelFields.outDim, default: 4096 },
};
const { backend, adapter, threads } = deviceFields;
const command = {
  seconds: number(2, "time for each measurement, at least three runs of it", { above: 0, unit: "seconds" }),
  profile: boolean(false, "tell how long each kind of operation takes"),
  checked: boolean(false, "keep WebAssembly's bounds checks"),
  json: boolean(false, "print an array of rows as JSON"),
  quiet: boolean(false, "print the rows only"),
};
const GROUPS: readonly FlagGroup[] = [
  { title: "Sizes", fields: sizes },
  { title: "Device", fields: { backend, adapter, threads } },
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
      usage: `bench [${NAMES.join(" | ")}]… [flags]`,
      about: "Measures what is named, or everything. Ratios are to a roofline measured in the same run: the most " +
        "multiply-adds that the same device does on registers alone.",
      groups: GROUPS,
    }));
    return 0;
  }
  for (const name of positional) {
    if (NAMES.includes(name)) continue;
    const nearest = nearestName(name, NAMES);
    throw new RangeError(
      `unknown benchmark ${name}: ${nearest ? `did you mean ${nearest}?` : `there are ${NAMES.join(", ")}`}`,
    );
  }
  const defaults = Object.assign(
    {},
    ...GROUPS.map(({ fields }) =>
      Object.fromEntries(Object.entries(fields).map(([key, field]) => [key, field.default]))
    ),
  );
  const flags = { ...defaults, ...given } as BenchFlags;
  const names = positional.length > 0 ? NAMES.filter((name) => positional.includes(name)) : NAMES;
  const progress = new Progress({ command: "bench", json: false, quiet: flags.quiet || flags.json });
  const rows: BenchRow[] = [];
  const show = (row: BenchRow) => {
    rows.push(row);
    if (!flags.json) progress.result(rowText(row));
  };
  let code = 0;
  if (names.some((name) => name !== "decode")) {
    code = await launch(jobOf(names, flags), {
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
  if (code === 0 && names.includes("decode")) { for await (const row of decodeRows(flags.seconds)) show(row); }
  if (flags.json) console.log(JSON.stringify(rows, null, 2));
  return code;
}

function jobOf(names: readonly string[], flags: BenchFlags): BenchJob {
  const crops = /^2x(\d+)(?:\+(\d+)x(\d+))?$/.exec(flags.crops);
  if (!crops) throw new RangeError(`--crops ${flags.crops}: write 2x224 or 2x224+8x96`);
  const [, globalCropSize, localCropsNumber = "0", localCropSize = globalCropSize] = crops;
  return {
    command: "bench",
    device: { backend: flags.backend, adapter: flags.adapter, threads: flags.threads },
    names,
    arch: flags.arch,
    patchSize: flags.patchSize,
    batchSize: flags.batchSize,
    globalCropSize: Number(globalCropSize),
    localCropSize: Number(localCropSize),
    localCropsNumber: Number(localCropsNumber),
    outDim: flags.outDim,
    seconds: flags.seconds,
    profile: flags.profile,
  };
}

function rowText(row: BenchRow): string {
  const parts = [`${row.median_ms} ms (${row.p10_ms}–${row.p90_ms})`];
  if (row.gflops !== undefined) parts.push(`${row.gflops} GFLOP/s`);
  if (row.roofline_ratio !== undefined) parts.push(`${(100 * row.roofline_ratio).toFixed(0)} % of roofline`);
  if (row.images_per_second !== undefined) parts.push(`${row.images_per_second} images/s`);
  return `${row.name.padEnd(10)}${parts.join(", ")}  ${row.shape}`;
}

if (import.meta.main) Deno.exit(await main(givenArguments()));
