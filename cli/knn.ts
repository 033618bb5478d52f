// `dino knn`: classifies images by the nearest neighbours of a network's features; runs directly too.

import { join } from "node:path";
import { dataFields, deviceFields, evaluationFields, VERBOSE_ADVICE } from "../dino/config.ts";
import { hasTestHalf } from "../dino/data/halves.ts";
import type { KnnAccuracy } from "../dino/eval/knn/knn.ts";
import { boolean, choice, type Field, integer, text } from "../dino/config/field.ts";
import { refuseAbsentDevice } from "./device/backend.ts";
import { exitStatus } from "./terminal/failure.ts";
import { type FlagGroup, parseFlags } from "./terminal/flags.ts";
import { helpText } from "./terminal/help.ts";
import { launch } from "./processes/launch.ts";
import { type DeviceChoice, deviceOf, type KnnJob } from "./processes/messages.ts";
import { givenArguments } from "./processes/mode.ts";
import { openData } from "./processes/open_data.ts";
import { Progress } from "./terminal/progress.ts";
import { REFUSED_FLAGS } from "./terminal/reference_flags.ts";
import { untilStopped } from "./processes/signals.ts";
import { headsFields, weightsPath } from "./terminal/weights_path.ts";

const evaluation = {
  nbKnn: evaluationFields.nbKnn,
  knnTemperature: { ...evaluationFields.knnTemperature, aliases: ["temperature"] },
  network: choice(["teacher", "student"], "teacher", "which network of a checkpoint", { aliases: ["checkpoint-key"] }),
  ...headsFields,
  cropSize: integer(null, "side of the central crop; auto: what the network was trained on", {
    min: 1,
    unit: "pixels",
  }),
  batchSize: integer(64, "images of one pass", { min: 1, unit: "images", aliases: ["batch-size-per-gpu"] }),
  seed: integer(0, "chooses the tenth that is held out when there is no --val", { min: 0, max: 2 ** 32 - 1 }),
  pixels: boolean(false, "classify plain pixels too, for comparison"),
};
const { backend, adapter, threads, webgpu, precision } = deviceFields;
const command = {
  checked: boolean(false, "keep WebAssembly's bounds checks"),
  json: boolean(false, "print the result as JSON"),
  quiet: boolean(false, "print the result only"),
  verbose: boolean(false, VERBOSE_ADVICE),
};
const GROUPS: readonly FlagGroup[] = [
  {
    title: "Data",
    fields: {
      ...dataFields,
      cacheDir: text(null, "where decoded images are packed; auto: a folder for this run only"),
    },
  },
  { title: "Evaluation", fields: evaluation },
  { title: "Device", fields: { backend, adapter, threads, webgpu, precision } },
  { title: "Command", fields: command },
];

type Values<F> = { readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never };
type KnnFlags = Values<typeof dataFields & typeof evaluation & typeof command> & DeviceChoice;

/** Runs the command; returns its exit status. */
export async function main(words: readonly string[]): Promise<number> {
  return await exitStatus("knn", () => knnCommand(words));
}

async function knnCommand(words: readonly string[]): Promise<number> {
  const { given, positional, help } = parseFlags(words, GROUPS, REFUSED_FLAGS.knn);
  if (help) {
    console.log(helpText({
      usage: "knn RUN|WEIGHTS [--data DIR] [--val DIR] [flags]",
      about: "Weighted k-nearest-neighbour classification with the features of a run's latest checkpoint, or of a " +
        "file of weights (see convert). Without --val the val half of --data is classified, or else a seeded tenth. Without --data: the embedded sample.",
      groups: GROUPS,
    }));
    return 0;
  }
  const defaults = Object.assign(
    {},
    ...GROUPS.map(({ fields }) =>
      Object.fromEntries(Object.entries(fields).map(([key, field]) => [key, (field as Field).default]))
    ),
  );
  const flags = { ...defaults, ...given } as KnnFlags;
  if (positional.length !== 1) {
    throw new RangeError(
      positional.length === 0
        ? "wants a run folder or a file of weights: knn RUN --data DIR"
        : `unexpected word ${positional[1]}`,
    );
  }
  const weights = await weightsPath(positional[0]);
  await refuseAbsentDevice(flags);
  const progress = new Progress({ command: "knn", json: false, quiet: flags.quiet || flags.json });
  const temporary = flags.cacheDir === null ? await Deno.makeTempDir({ prefix: "denodino-knn-" }) : undefined;
  try {
    return await evaluate(weights, flags, flags.cacheDir ?? temporary!, progress);
  } finally {
    progress.close();
    if (temporary) await Deno.remove(temporary, { recursive: true }).catch(() => {});
  }
}

async function evaluate(weights: string, flags: KnnFlags, cacheDir: string, progress: Progress): Promise<number> {
  const { data: path } = flags;
  const val = flags.val ?? (path !== null && await hasTestHalf(path) ? path : null);
  const opened = await untilStopped((signal) =>
    openData(
      { ...flags, val, cacheDir: join(cacheDir, "images"), crop: flags.cropSize ?? 224 },
      (event) => progress.show({ source: "data", ...event }),
      signal,
    )
  );
  if (typeof opened === "number") return opened;
  const { data, val: held } = opened.done;
  data.close();
  held?.close();
  const job: KnnJob = {
    command: "knn",
    device: deviceOf(flags),
    weights,
    network: flags.network,
    numHeads: flags.numHeads,
    data: data.locator,
    val: held?.locator,
    cropSize: flags.cropSize,
    batch: flags.batchSize,
    ks: flags.nbKnn,
    temperature: flags.knnTemperature,
    seed: flags.seed,
    pixels: flags.pixels,
  };
  const results: { network: string; split: string; accuracies: readonly KnnAccuracy[] }[] = [];
  const code = await launch(job, {
    checked: flags.checked,
    onNotice: (message) => progress.warn(message),
    onEvent: (event) => {
      if (event.type === "knnResult") {
        const { network, split, accuracies } = event;
        results.push({ network, split, accuracies });
      } else progress.show(event);
    },
  });
  if (code !== 0) return code;
  const skipped = data.skipped.length + (held?.skipped.length ?? 0); // named as they were met
  if (flags.json) console.log(JSON.stringify({ weights, results, skipped }));
  else {
    for (const { network, split, accuracies } of results) {
      progress.result(`${network}: ${split}`);
      for (const { k, top1, top5 } of accuracies) {
        progress.result(`  k = ${String(k).padStart(4)}   top-1 ${top1.toFixed(2)} %   top-5 ${top5.toFixed(2)} %`);
      }
    }
  }
  return 0;
}

if (import.meta.main) Deno.exit(await main(givenArguments()));
