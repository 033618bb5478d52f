// What every evaluation command shares: weights, images, a device, progress, JSON or lines, and no output left half done.

import { join } from "node:path";
import { dataFields, deviceFields, VERBOSE_ADVICE } from "../../dino/config.ts";
import type { PixelLocator, PixelSource } from "../../dino/data/dataset.ts";
import { isImageName } from "../../dino/data/decode.ts";
import { hasTestHalf } from "../../dino/data/halves.ts";
import { openPixels } from "../../dino/data/open.ts";
import { loadSample } from "../../dino/data/sample.ts";
import { boolean, choice, type Field, text } from "../../dino/config/field.ts";
import { refuseAbsentDevice } from "../device/backend.ts";
import { DecoderPool } from "../processes/decoder_pool.ts";
import type { EvaluationCommand, EvaluationOutcome, SourceRequest, Values } from "./command.ts";
import { exitStatus } from "../terminal/failure.ts";
import { type FlagGroup, parseFlags } from "../terminal/flags.ts";
import { helpText } from "../terminal/help.ts";
import { checkedBinary, launch } from "../processes/launch.ts";
import { type DeviceChoice, deviceOf, type EvaluationJob } from "../processes/messages.ts";
import { refuseUnwritableFile } from "./output_folder.ts";
import { Progress } from "../terminal/progress.ts";
import { REFUSED_FLAGS } from "../terminal/reference_flags.ts";
import { untilStopped } from "../processes/signals.ts";
import { headsFields, weightsPath } from "../terminal/weights_path.ts";

/** Where the weights are. */
const weightsFields = {
  weights: text(null, "a run folder or a file of weights; also the first word", { aliases: ["pretrained-weights"] }),
  network: choice(["teacher", "student"], "teacher", "which network of a checkpoint", { aliases: ["checkpoint-key"] }),
  ...headsFields,
};

/** How images are read. */
const imageFields = {
  numWorkers: dataFields.numWorkers,
  cacheDir: text(null, "where decoded images are packed; auto: a folder for this run only"),
  exif: dataFields.exif,
};

const device = {
  backend: deviceFields.backend,
  adapter: deviceFields.adapter,
  threads: deviceFields.threads,
  webgpu: deviceFields.webgpu,
  precision: deviceFields.precision,
  checked: boolean(false, "keep WebAssembly's bounds checks"),
};

const output = {
  json: boolean(false, "print the result as JSON"),
  quiet: boolean(false, "print the result only"),
  verbose: boolean(false, VERBOSE_ADVICE),
};

/** Flags that name files to be written, where they have an extension. */
const FILE_FLAGS = ["out", "sheet", "plot"];

const COMMON = { ...weightsFields, ...imageFields, ...device, ...output };

/** Runs an evaluation from a command line; returns the exit status. */
export async function runEvaluation<F extends Readonly<Record<string, Field>>>(
  command: EvaluationCommand<F>,
  words: readonly string[],
): Promise<number> {
  return await exitStatus(command.name, () => run(command, words));
}

async function run<F extends Readonly<Record<string, Field>>>(
  command: EvaluationCommand<F>,
  words: readonly string[],
): Promise<number> {
  const groups: FlagGroup[] = [
    { title: "Evaluation", fields: command.fields },
    ...command.weightless ? [] : [
      { title: "Weights", fields: weightsFields },
      { title: "Images", fields: imageFields },
    ],
    { title: "Device", fields: device },
    { title: "Command", fields: output },
  ];
  const { given, positional, help } = parseFlags(words, groups, REFUSED_FLAGS[command.name]);
  if (help) {
    console.log(helpText({ usage: command.usage, about: command.about, groups, after: command.after }));
    return 0;
  }
  const defaults = Object.fromEntries(
    groups.flatMap(({ fields }) => Object.entries(fields).map(([key, field]) => [key, field.default])),
  );
  const typed = { ...defaults, ...given } as Values<F> & Values<typeof COMMON> & DeviceChoice;
  const read = await command.readWords?.(positional, typed);
  const flags = read ? { ...typed, words: read.words } : typed;
  if (command.weightless && positional.length > 0) throw new RangeError(`unexpected word ${positional[0]}`);
  const weights = command.weightless
    ? null
    : await weightsFile(read ? [read.weights] : positional, read ? null : flags.weights, command.usage);
  await refuseAbsentDevice(deviceOf(flags));
  const progress = new Progress({ json: false, quiet: flags.quiet || flags.json });
  const temporary = await Deno.makeTempDir({ prefix: `denodino-${command.name}-` });
  try {
    const cache = flags.cacheDir ?? temporary;
    for (const key of FILE_FLAGS) {
      const file = (flags as Record<string, unknown>)[key];
      if (typeof file === "string" && /\.\w+$/.test(file)) await refuseUnwritableFile(`--${key} ${file}`, file);
    }
    const prepared = await untilStopped(async (signal) => {
      const extra = await command.prepare?.(flags, temporary, signal) ?? null;
      const requests = command.sources(flags, extra);
      return { extra, ...await openSources(requests, join(cache, "images"), flags, progress, signal) };
    });
    if (typeof prepared === "number") return prepared;
    const { extra, locators: sources, skipped } = prepared.done;
    const { network, numHeads = null } = flags;
    return await compute(
      command,
      {
        command: "evaluation",
        name: command.name,
        device: deviceOf(flags),
        weights,
        network: network ?? "teacher",
        numHeads,
        sources,
        flags: flags as Record<string, unknown>,
        extra,
      },
      flags,
      progress,
      skipped,
    );
  } finally {
    progress.close();
    await Deno.remove(temporary, { recursive: true }).catch(() => {});
  }
}

async function compute<F extends Readonly<Record<string, Field>>>(
  command: EvaluationCommand<F>,
  job: EvaluationJob,
  flags: Values<F> & Values<typeof COMMON>,
  progress: Progress,
  skipped: number | undefined,
): Promise<number> {
  let outcome: EvaluationOutcome | undefined;
  const code = await launch(job, {
    checked: flags.checked,
    onNotice: (message) => progress.warn(message),
    onEvent: (event) => {
      if (event.type === "evaluationResult") outcome = event.outcome;
      else if (event.type === "failure") {
        progress.show({ ...event, failure: { ...event.failure, message: `${job.name}: ${event.failure.message}` } });
      } else progress.show(event);
    },
  });
  if (code !== 0 || !outcome) return code;
  const { finish } = command;
  if (finish) {
    const show = (what: string, done: number, total: number) =>
      progress.show({ type: "evaluating", what, done, total });
    const finished = await untilStopped((signal) => finish(flags, job.extra, { signal, progress: show }));
    if (typeof finished === "number") return finished;
    progress.close();
  }
  if (flags.json) {
    const weights = job.weights === null ? {} : { weights: job.weights };
    console.log(JSON.stringify({ ...weights, ...outcome.value, skipped }));
  } else {
    for (const line of outcome.lines) progress.result(line);
    if (skipped) progress.result(`${skipped === 1 ? "1 image" : `${skipped} images`} could not be read: left out`);
  }
  return 0;
}

/** Opens and decodes. */
async function openSources(
  requests: Readonly<Record<string, SourceRequest>>,
  cacheDirectory: string,
  flags: Values<typeof imageFields> & { readonly cropSize?: number | null },
  progress: Progress,
  signal: AbortSignal,
): Promise<{ locators: Record<string, PixelLocator>; skipped?: number }> {
  const processes = flags.numWorkers ?? Math.max(1, Math.min(16, navigator.hardwareConcurrency - 1));
  const decoder = new DecoderPool({ processes, executable: checkedBinary() });
  const locators: Record<string, PixelLocator> = {};
  let skipped: number | undefined; // where images may be: they are named as they are met
  try {
    for (const [name, request] of Object.entries(requests)) {
      const { path, split, limit, strict, original = strict, ifHalved } = request;
      if (ifHalved && !await hasTestHalf(path!)) continue;
      if (path === null) {
        locators[name] = (await loadSample(split ?? "train", limit)).locator;
        continue;
      }
      const source: PixelSource = await openPixels(path, {
        files: request.files ?? await onlyImage(path),
        split,
        limit,
        exif: flags.exif,
        cacheDirectory,
        cacheSize: original ? "original" : "fitting", // photographs by the thousand fit no disk as pixels
        crop: flags.cropSize ?? undefined,
        decoder,
        signal,
        onEvent: (event) =>
          progress.show({ source: "data", ...event, ...event.type === "found" ? { name: path } : {} }),
      });
      source.close();
      if (strict && source.skipped.length > 0) {
        const [{ id, reason }] = source.skipped;
        const named = request.files || id === path ? id : `${path}: ${id}`;
        throw new RangeError(`${named} cannot be read: ${reason}: replace it, or take it out`);
      }
      if (!strict) skipped = (skipped ?? 0) + source.skipped.length;
      locators[name] = source.locator;
    }
    return { locators, skipped };
  } finally {
    await decoder.close();
  }
}

/** A path that is one image, as the list of it. */
async function onlyImage(path: string): Promise<string[] | undefined> {
  if (!isImageName(path)) return undefined;
  const stat = await Deno.stat(path).catch(() => undefined);
  if (!stat) throw new RangeError(`${path}: no such image`);
  return stat.isDirectory ? undefined : [path];
}

/** A run's latest checkpoint, or the file itself. */
async function weightsFile(positional: readonly string[], flag: string | null, usage: string): Promise<string> {
  const words = flag === null ? positional : [...positional, flag];
  if (words.length !== 1) {
    throw new RangeError(
      words.length === 0 ? `wants a run folder or a file of weights: ${usage}` : `unexpected word ${words[1]}`,
    );
  }
  return await weightsPath(words[0]);
}
