// `dino train`: trains, from a command line; runs directly too.

import { pathExists } from "../dino/path_exists.ts";
import { join } from "node:path";
import { type Config, defaultCommand, defaultConfig, fieldGroups, refusedFlags } from "../dino/config.ts";
import { EXTENTS } from "../dino/config/architecture.ts";
import { checkConfig, configFromJson, fitConfig } from "../dino/config/check.ts";
import { freeBytes } from "../dino/data/disk_space.ts";
import type { KnnRow } from "../dino/run/events.ts";
import { applyPreset, presets } from "../dino/config/presets.ts";
import { requireEqualShares } from "../dino/run/plan.ts";
import { heldMessage, RunFolder } from "../dino/run/folder.ts";
import { refuseAbsentDevice } from "./device/backend.ts";
import { dryRun } from "./dry_run.ts";
import {
  EXIT_HANGUP,
  EXIT_INTERRUPTED,
  EXIT_STATUSES,
  EXIT_TERMINATED,
  exitStatus,
  failureOf,
  printFailure,
} from "./terminal/failure.ts";
import { parseFlags } from "./terminal/flags.ts";
import { helpText } from "./terminal/help.ts";
import { launch } from "./processes/launch.ts";
import { type AbandonJob, type ComputeEvent, deviceOf, type FollowJob, type TrainJob } from "./processes/messages.ts";
import { givenArguments } from "./processes/mode.ts";
import { startedIn, type World } from "./mpi/world.ts";
import { openData } from "./processes/open_data.ts";
import { shellWord } from "./terminal/printable.ts";
import { knnText, Progress } from "./terminal/progress.ts";
import { writeRunReport } from "./report/run_report.ts";
import { untilStopped } from "./processes/signals.ts";
import { formatBytes } from "./terminal/std.ts";
import { VERSION, versionText } from "./terminal/version.ts";

/** What runs when there is no --data. */
const SAMPLE_PRESET = "sample";

/** Within an epoch, the report is written this often. */
const REPORT_MS = 60_000;

type CommandValues = ReturnType<typeof defaultCommand>;

/** Runs the command; returns its exit status. */
export async function main(words: readonly string[]): Promise<number> {
  return await exitStatus("train", () => trainCommand(words));
}

async function trainCommand(words: readonly string[]): Promise<number> {
  if (words.includes("--version")) {
    console.log(versionText());
    return 0;
  }
  const { given, positional, help } = parseFlags(words, fieldGroups, refusedFlags);
  if (help) {
    console.log(trainHelp());
    return 0;
  }
  if (positional.length > 0) {
    throw new RangeError(`unexpected word ${positional[0]}: flags begin with --, as in --data ${positional[0]}`);
  }
  const command: CommandValues = { ...defaultCommand(), ...pick(given, defaultCommand()) };
  const world = startedIn(command.distributed);
  if (world && world.rank > 0) return command.dryRun ? 0 : await follow(world, given, command.checked);
  if (!world || command.dryRun) return await trainFirst(given, command, world);
  try {
    return await trainFirst(given, command, world);
  } catch (error) {
    const failure = failureOf(error);
    printFailure("train", failure); // at once: an mpirun may end all ranks as soon as one has ended
    await abandon(world, failure.message);
    return failure.exit;
  }
}

/** Trains alone, or as the first rank. */
async function trainFirst(
  given: Readonly<Record<string, unknown>>,
  command: CommandValues,
  world: World | undefined,
): Promise<number> {
  const config = await configure(given, command);
  const out = config.out ?? join("runs", new Date().toISOString().slice(0, 19).replaceAll(":", "-"));
  await refuseEarly(config, command, out);
  if (world) requireEqualShares(config, world);
  const progress = new Progress({ command: "train", json: command.json, quiet: command.quiet });
  if (command.dryRun) return await dryRun(config, progress, world);
  return await prepareAndTrain({ ...config, out }, command, out, progress, world && { world, given });
}

/** Lets the other ranks know that nothing will come of it: they wait for this one's compute process. */
async function abandon(world: World, reason: string): Promise<void> {
  const job: AbandonJob = { command: "abandon", world, reason, device: deviceOf(defaultConfig()) };
  await launch(job, { checked: true, onEvent: () => {}, onNotice: () => {} });
}

/** Does what the first rank does, and shows nothing but what that one cannot know of. */
async function follow(world: World, given: FollowJob["given"], checked: boolean): Promise<number> {
  const device = deviceOf({ ...defaultConfig(), ...pick(given, defaultConfig()) });
  const job: FollowJob = { command: "follow", world, given, device };
  let last = "nothing was saved since it began";
  const warn = (message: string) => console.error(`train: rank ${world.rank}: ${message}`);
  return await launch(job, {
    checked,
    onNotice: (message) => {
      if (!message.startsWith("stopping")) warn(`${message}; ${last}`); // the first rank says that it stops
    },
    onEvent: (event) => {
      if (event.type === "checkpoint") last = `the last checkpoint is ${event.path} of update ${event.step}`;
      if (event.type === "failure" && event.failure.message !== "") warn(event.failure.stack ?? event.failure.message);
    },
  });
}

/** Defaults, then a preset, a file or the run that is resumed, then flags. */
async function configure(given: Readonly<Record<string, unknown>>, command: CommandValues): Promise<Config> {
  let config = defaultConfig();
  const flags = pick(given, config);
  if (command.resume) {
    if (command.overwrite) throw new RangeError("--resume with --overwrite: use one of the two");
    if (typeof given.out !== "string") throw new RangeError("--resume: wants the folder of the run in --out");
    const { folder, record } = await RunFolder.open(given.out);
    folder.close();
    // The updates asked for were those of the earlier command.
    config = { ...record.config, steps: null };
    if (flags.arch !== undefined && flags.arch !== record.config.arch) leaveToArch(config);
    for (const key of ["data", "val"] as const) await refuseMovedImages(key, config[key], key in given);
  }
  if (command.config !== null) {
    const file = await readJson(command.config);
    config = configFromJson(file, config);
    if (flags.arch !== undefined && Object.hasOwn(file as object, "arch")) leaveToArch(config);
  }
  const preset = command.preset ??
    (!command.resume && command.config === null && !("data" in given) ? SAMPLE_PRESET : null);
  if (preset !== null) config = shortenWarmups(applyPreset(preset, config, flags.arch), flags.epochs);
  return { ...config, ...flags };
}

/** What stands beside an arch is of that arch, and would hide another one that a flag names. */
function leaveToArch(config: Config): void {
  for (const key of EXTENTS) config[key] = null;
}

/** A run remembers where its images were, seen from where it was started. */
async function refuseMovedImages(flag: "data" | "val", path: string | null, isGiven: boolean): Promise<void> {
  if (path === null || isGiven || await pathExists(path)) return;
  throw new RangeError(
    `--resume: the run's images (--${flag} ${path}) are not there, seen from ${Deno.cwd()}: say with --${flag} where they are`,
  );
}

/** A preset's warm-ups in a run of fewer epochs than the preset's, in proportion. */
function shortenWarmups(config: Config, epochs = config.epochs): Config {
  const shortened = { ...config };
  for (const key of ["warmupEpochs", "warmupTeacherTempEpochs"] as const) {
    const value = config[key];
    if (value !== null && epochs < config.epochs) shortened[key] = Math.floor(value * epochs / config.epochs);
  }
  return shortened;
}

/** The configuration in a JSON file: the values alone, or a run's config.json. */
async function readJson(path: string): Promise<unknown> {
  const text = await Deno.readTextFile(path).catch((error) => {
    throw new RangeError(`--config ${path}: cannot be read (${(error as Error).message})`);
  });
  try {
    const json = JSON.parse(text);
    return json?.config ?? json;
  } catch (error) {
    throw new SyntaxError(`--config ${path}: is not JSON (${(error as Error).message})`);
  }
}

/** What can be refused before any image is looked at. */
async function refuseEarly(config: Config, command: CommandValues, out: string): Promise<void> {
  // Sizes that are left open are fitted to the images and never wrong; those that are given must be right already.
  const large = config.globalCropSize ?? 2 ** 20;
  checkConfig(fitConfig(config, { images: 2 ** 31, shorterSide: large }));
  if (command.dryRun) return;
  if (!command.resume && !command.overwrite && await RunFolder.holdsRun(out)) throw new RangeError(heldMessage(out));
  await refuseAbsentDevice(config);
}

async function prepareAndTrain(
  config: Config,
  command: CommandValues,
  out: string,
  progress: Progress,
  distributed: TrainJob["distributed"],
): Promise<number> {
  const isNew = !await pathExists(out);
  const open = async (signal: AbortSignal) => {
    await RunFolder.tryOut(out);
    return await openData(
      { ...config, cacheDir: config.cacheDir ?? join(out, "cache"), crop: config.globalCropSize ?? 224 },
      (event) => progress.show({ source: "data", ...event }),
      signal,
      (images) =>
        checkConfig(fitConfig(config, { images, shorterSide: config.globalCropSize ?? 2 ** 20 }), {
          images,
          shorterSide: 0,
        }),
    );
  };
  const removeEmpty = async () => {
    if (isNew) await Deno.remove(out).catch(() => {}); // only if nothing is in it
  };
  const opened = await untilStopped(open).catch(async (error) => {
    progress.close();
    await removeEmpty();
    throw error;
  });
  if (typeof opened === "number") {
    progress.close();
    await removeEmpty();
    progress.result("stopped before training; what is decoded stays in the cache");
    if (distributed) await abandon(distributed.world, "it was stopped before training");
    return opened;
  }
  const { data, val } = opened.done;
  const job: TrainJob = {
    command: "train",
    config,
    data: data.locator,
    val: val?.locator,
    out,
    resume: command.resume,
    reschedule: command.reschedule,
    overwrite: command.overwrite,
    verbose: command.verbose,
    distributed,
  };
  data.close();
  val?.close();
  return await trainInChild(job, command.checked, progress);
}

async function trainInChild(job: TrainJob, checked: boolean, progress: Progress): Promise<number> {
  const { out } = job;
  const seen: Seen = { knn: [] };
  // Reports are written one after the other, and never hold up the run; one that waits already will say the same.
  let reports: Promise<unknown> = Promise.resolve(), waiting = false, lastReport = 0;
  const report = () => {
    if (waiting) return;
    waiting = true;
    lastReport = performance.now();
    reports = reports.then(() => {
      waiting = false;
      const { crops } = seen;
      return writeRunReport(out, {
        backend: seen.backend,
        version: VERSION,
        contactSheet: crops && { png: Uint8Array.fromBase64(crops.png), caption: crops.caption },
      });
    }).catch((error) => progress.warn(`report.html: ${(error as Error).message}`));
  };
  const code = await launch(job, {
    checked,
    onNotice: (message) => progress.warn(message),
    onEvent: (event) => {
      progress.show(event);
      if (event.type === "backend") seen.backend = event.description;
      else if (event.type === "crops") seen.crops = event;
      else if (event.type === "result") seen.knn = event.knn;
      else if (event.type === "checkpoint") seen.checkpoint = event;
      else if (event.type === "start" || event.type === "end" || event.type === "failure") seen[event.type] = true;
      if (event.type === "start") warnOfDisk(job, event.checkpointBytes, progress);
      const due = event.type === "step" && performance.now() - lastReport > REPORT_MS;
      if (due || event.type === "epoch" || event.type === "end" || event.type === "start") report();
    },
  });
  await reports;
  progress.close();
  if (seen.start) showEnd(progress, seen, out, code);
  return code;
}

/** A disk that is too small is better known before the first night. */
async function warnOfDisk({ out, config }: TrainJob, checkpointBytes: number, progress: Progress): Promise<void> {
  const kept = Math.min(config.keep ?? Infinity, Math.floor(config.epochs / config.saveckpFreq));
  const wanted = (kept + 2) * checkpointBytes, free = await freeBytes(out) ?? Infinity;
  if (wanted <= free) return;
  progress.warn(
    `--out ${out}: the run's checkpoints may take ${formatBytes(wanted)}, the disk has ${formatBytes(free)} left: ` +
      "make room, or use --keep or a larger --saveckp-freq; a full disk stops the run, which can then be resumed",
  );
}

/** What a run has told so far that matters at its end. */
interface Seen {
  knn: readonly KnnRow[];
  backend?: string;
  crops?: ComputeEvent & { type: "crops" };
  checkpoint?: { readonly step: number };
  start?: true;
  end?: true;
  failure?: true;
}

function showEnd(progress: Progress, { knn, checkpoint, end, failure }: Seen, out: string, code: number): void {
  for (const row of knn) progress.result(knnText(row));
  const stopped = [EXIT_INTERRUPTED, EXIT_TERMINATED, EXIT_HANGUP].includes(code);
  if (end && stopped) progress.result(`saved: go on with --resume --out ${shellWord(out)}`);
  if (!end && !failure && code !== 0) { // it was killed
    progress.result(
      `${checkpoint ? `the last checkpoint is of update ${checkpoint.step}` : "nothing was saved since it began"}: ` +
        `go on with --resume --out ${shellWord(out)}`,
    );
  }
  progress.show({ type: "report", path: join(out, "report.html") });
}

/** The part of the given values that `like` has too. */
function pick<T extends object>(given: Readonly<Record<string, unknown>>, like: T): Partial<T> {
  return Object.fromEntries(Object.entries(given).filter(([key]) => key in like)) as Partial<T>;
}

function trainHelp(): string {
  const names = Object.entries(presets).map(([name, { about }]) => `  ${name}: ${about}`);
  return helpText({
    usage: "train [flags]",
    about:
      "Trains a Vision Transformer with DINO. Without --data: on a small sample, in minutes. Flags may be written " +
      "with hyphens or underscores; booleans take true or false, or nothing, or --no- before their name.",
    groups: fieldGroups,
    after: [
      "Examples:\n" +
      "  train --data photos/ --out runs/photos --arch vit_small --epochs 100\n" +
      "  train --data photos/ --dry-run\n" +
      "  mpirun -n 4 dino train --data photos/ --batch-size 256 (four processes, 64 images each)\n" +
      "  train --out runs/photos --resume",
      `Presets:\n${names.join("\n")}`,
      EXIT_STATUSES + " A stopped training saves first.",
    ],
  });
}

if (import.meta.main) Deno.exit(await main(givenArguments()));
