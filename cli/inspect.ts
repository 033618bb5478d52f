// `dino inspect`: what a file of weights holds, and whether it is a published one; runs directly too.

import { basename } from "node:path";
import { boolean, type Field, integer, number, text } from "../dino/config/field.ts";
import { openWeights } from "../models/weights/open.ts";
import { describeLayout } from "../models/weights/published.ts";
import { tensorStatistics } from "../models/weights/statistics.ts";
import type { WeightsReport } from "../models/weights/vit_weights.ts";
import { elementCount } from "../models/weights/tensor_file.ts";
import { exitStatus } from "./terminal/failure.ts";
import { type FlagGroup, parseFlags } from "./terminal/flags.ts";
import { helpText } from "./terminal/help.ts";
import { givenArguments } from "./processes/mode.ts";
import { weightsPath } from "./terminal/weights_path.ts";

const fields = {
  stats: boolean(true, "read every tensor for its smallest, largest, mean and standard deviation"),
  keys: boolean(false, "list every tensor that a network needs and lacks, has in another shape, or does not use"),
  check: boolean(false, "exit with status 2 unless there is a complete network"),
  match: text(null, "only tensors whose names contain this"),
  numHeads: integer(null, "attention heads, where the file does not say", { min: 1 }),
  layerNormEps: number(null, "epsilon of the layer norms, where the file does not say", { min: 0 }),
  json: boolean(false, "print the result as JSON"),
};
const GROUPS: readonly FlagGroup[] = [{ title: "Output", fields }];

type Values<F> = { readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never };

/** Runs the command; returns its exit status. */
export async function main(words: readonly string[]): Promise<number> {
  return await exitStatus("inspect", () => inspectCommand(words));
}

async function inspectCommand(words: readonly string[]): Promise<number> {
  const { given, positional, help } = parseFlags(words, GROUPS);
  if (help) {
    console.log(helpText({
      usage: "inspect FILE|FOLDER|RUN [flags]",
      about: "Lists the tensors of a file of weights of any format, and says whose layout it is. Nothing in it is run.",
      groups: GROUPS,
    }));
    return 0;
  }
  if (positional.length !== 1) throw new RangeError("wants one path: inspect FILE");
  const defaults = Object.fromEntries(Object.entries(fields).map(([key, field]) => [key, field.default]));
  const flags = { ...defaults, ...given } as Values<typeof fields>;
  const file = await openWeights(await weightsPath(positional[0]));
  try {
    const config = {
      ...(flags.numHeads === null ? {} : { numHeads: flags.numHeads }),
      ...(flags.layerNormEps === null ? {} : { layerNormEps: flags.layerNormEps }),
    };
    const { sentences, reports, published } = await describeLayout(file, config);
    const infos = [...file.tensors.values()].filter(({ name }) => flags.match === null || name.includes(flags.match));
    const elements = infos.reduce((sum, { shape }) => sum + elementCount(shape), 0);
    if (!flags.json) {
      console.log(`${file.name}: ${file.format}, ${file.tensors.size} tensors`);
      for (const sentence of sentences) console.log(`  ${sentence}`);
      console.log(
        published
          ? `  by ${published.by} this is the published ${published.file}` +
            (basename(file.name) === published.file ? "" : `, under another name`)
          : "  is not one of the published files by names and shapes",
      );
      if (flags.keys) { for (const { network, report } of reports) printKeys(network, report); }
    }
    const rows: Record<string, unknown>[] = [];
    const width = infos.reduce((most, { name }) => Math.max(most, printable(name).length), 6);
    for (const info of infos) {
      const statistics = flags.stats ? tensorStatistics(info.dtype, await file.read(info)) : undefined;
      if (flags.json) {
        rows.push({ name: info.name, dtype: info.dtype, shape: info.shape, ...statistics });
        continue;
      }
      const numbers = statistics
        ? [statistics.min, statistics.max, statistics.mean, statistics.std].map((x) => short(x).padStart(10)).join("")
        : "";
      const odd = statistics?.notFinite ? `  ${statistics.notFinite} not finite` : "";
      const shape = `[${info.shape.join(", ")}]`;
      console.log(
        `  ${printable(info.name).padEnd(width)}  ${info.dtype.padEnd(4)} ${shape.padEnd(18)}${numbers}${odd}`,
      );
    }
    if (flags.json) {
      console.log(JSON.stringify({
        name: file.name,
        format: file.format,
        layout: sentences,
        published: published ?? null,
        reports,
        tensors: rows,
      }));
    } else {
      if (flags.stats && infos.length > 0) {
        console.log(`  (after the shape: smallest, largest, mean, standard deviation)`);
      }
      console.log(`  ${elements} elements in ${infos.length} tensors`);
    }
    if (!flags.check) return 0;
    const complete = ({ report }: (typeof reports)[number]) =>
      report.missing.length === 0 && report.shapeDifferences.length === 0;
    if (reports.length > 0 && reports.every(complete)) return 0;
    throw new SyntaxError(
      `${file.name}: ${reports.length > 0 ? "its network is not complete: --keys tells more" : "holds no network"}`,
    );
  } finally {
    file.close();
  }
}

function printKeys(network: string, { matched, missing, shapeDifferences, unexpected }: WeightsReport): void {
  console.log(`  ${network}: ${matched.length} matched`);
  for (const name of missing) console.log(`    missing     ${printable(name)}`);
  for (const { name, there, wanted } of shapeDifferences) {
    console.log(`    other shape ${printable(name)} [${there}], wanted [${wanted}]`);
  }
  for (const name of unexpected) console.log(`    not used    ${printable(name)}`);
}

/** Names come from the file: control characters could rewrite a terminal. */
function printable(name: string): string {
  // deno-lint-ignore no-control-regex
  return name.replace(/[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, "�");
}

function short(x: number): string {
  return Number.isNaN(x)
    ? "-"
    : Number.isInteger(x) && Math.abs(x) < 1e8
    ? String(x)
    : Math.abs(x) >= 1e-3 && Math.abs(x) < 1e5
    ? x.toPrecision(4)
    : x.toExponential(2);
}

if (import.meta.main) Deno.exit(await main(givenArguments()));
