// Whether a checkpoint can be continued with the configuration at hand, and what that does to the schedules.

import type { TrainingState } from "./checkpoint.ts";
import { type Config, configFields, defaultConfig } from "../config.ts";
import { flagOf } from "../config/field.ts";
import type { RunPlan } from "./plan.ts";
import { type ScheduledValues, scheduledValues } from "../schedule.ts";

/** Fields that change neither a draw nor a sum: another value needs no explanation. */
const FREE: ReadonlySet<string> = new Set<keyof Config>([
  "data", // its fingerprint is compared instead
  "val",
  "limit",
  "pad",
  "numWorkers",
  "cacheDir",
  "cacheSize",
  "exif",
  "out",
  "steps",
  "saveckpFreq",
  "saveMinutes",
  "keep",
  "knnEvery",
  "nbKnn",
  "knnTemperature",
  "logEvery",
  "backend",
  "adapter",
  "threads",
  "webgpu", // the fingerprint names it
  "recompute",
]);

/** Where a run goes on. */
export interface ResumePoint {
  /** Updates made, in updates of the batch at hand. */
  readonly step: number;
  readonly notices: readonly string[];
}

/**
 * Compares a checkpoint with what is wanted now.
 *
 * @param fingerprint of the backend at hand
 * @param reschedule accepts changes that bend the schedules
 * @throws {RangeError} if something differs that changes the run, and `reschedule` is false: with what would happen
 */
export function resumePoint(
  saved: TrainingState,
  plan: RunPlan,
  data: TrainingState["data"],
  fingerprint: string,
  reschedule: boolean,
): ResumePoint {
  const { config, stepsPerEpoch } = plan;
  const notices: string[] = [];
  const epoch = Math.floor(saved.step / saved.stepsPerEpoch);
  const imagesSeen = saved.step % saved.stepsPerEpoch * saved.config.batchSize;
  const step = epoch * stepsPerEpoch + Math.floor(imagesSeen / config.batchSize);

  if (config.init !== saved.config.init) {
    throw new RangeError(
      `--init ${config.init} with --resume: the weights come from the checkpoint: use one of the two`,
    );
  }
  const changes = changedKeys(saved.config, config).map((key) =>
    `--${flagOf(key)} ${show(config[key])} instead of ${show(saved.config[key])}`
  );
  if (data.fingerprint !== saved.data.fingerprint) {
    changes.push(`other images: ${data.name} (${data.images}) instead of ${saved.data.name} (${saved.data.images})`);
  }
  if (changes.length > 0) {
    const bend = `${changes.join(", ")}: ${bending(saved, plan, step)}`;
    if (!reschedule) throw new RangeError(`${bend}: add --reschedule to accept that, or leave them as they were`);
    notices.push(bend);
  }
  if (fingerprint !== saved.backend) {
    notices.push(
      `the run was computed on ${saved.backend} and goes on with ${fingerprint}: sums may round differently`,
    );
  }
  return { step, notices };
}

/** Keys of values that change the course of a run. */
function changedKeys(recorded: Config, wanted: Config): (keyof Config)[] {
  const saved = { ...defaultConfig(), ...recorded }; // a checkpoint of an earlier version lacks later fields
  return (Object.keys(configFields) as (keyof Config)[]).filter((key) =>
    !FREE.has(key) && key !== "init" && JSON.stringify(saved[key]) !== JSON.stringify(wanted[key])
  );
}

function show(value: unknown): string {
  return Array.isArray(value) ? value.join(" ") : value === null ? "auto" : String(value);
}

const SHOWN: readonly [keyof ScheduledValues, string][] = [
  ["lr", "learning rate"],
  ["weightDecay", "weight decay"],
  ["momentum", "teacher momentum"],
  ["teacherTemp", "teacher temperature"],
];

/** The jump of the schedules at the seam, in words. */
function bending(saved: TrainingState, { config, stepsPerEpoch, totalSteps }: RunPlan, step: number): string {
  const last = saved.config.epochs * saved.stepsPerEpoch - 1;
  const before = scheduledValues(saved.config, saved.stepsPerEpoch, Math.min(saved.step, last));
  if (step >= totalSteps) return `the run would already be over after ${totalSteps} updates`;
  const after = scheduledValues(config, stepsPerEpoch, step);
  const jumps = SHOWN
    .filter(([key]) => before[key] !== after[key])
    .map(([key, name]) =>
      `the ${name} goes from ${Number(before[key]).toPrecision(4)} to ${Number(after[key]).toPrecision(4)}`
    );
  const seam = `at update ${step} of ${totalSteps}`;
  return jumps.length > 0 ? `${seam} ${jumps.join(", ")}` : `${seam} the schedules are unchanged, the run is not`;
}
