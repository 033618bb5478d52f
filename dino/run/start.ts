// How a run starts: anew, or from its latest checkpoint.

import { checkCheckpoint, readCheckpoint, readCheckpointCounts, type TrainingState } from "./checkpoint.ts";
import type { BatchCounts } from "../batch_counts.ts";
import { checkpointTensors } from "./checkpoint_tensors.ts";
import { initializeState } from "../initialize.ts";
import { type ResumePoint, resumePoint } from "./resume.ts";
import { RunFolder } from "./folder.ts";
import type { RunPlan } from "./plan.ts";
import type { Ranks } from "../ranks/ranks.ts";
import { RunReporter } from "./reporter.ts";
import type { DinoState } from "../state.ts";
import type { TrainOptions } from "../train_options.ts";

/** A run about to go on. */
export interface RunStart {
  /** Where it is kept; without one nothing is written. */
  readonly folder?: RunFolder;
  readonly report: RunReporter;
  /** Where the latest checkpoint will be, also where another rank writes it. */
  readonly latestPath?: string;
  /** Updates made. */
  readonly step: number;
  /** Adam's counts, one a parameter group; absent at the beginning. */
  readonly optimizerSteps?: readonly number[];
  /** Batches that running statistics had seen before, where this rank keeps the run. */
  readonly batchCounts?: BatchCounts;
  readonly lastCheckpoint?: { readonly path: string; readonly step: number };
}

/** A checkpoint that can be continued, and the locked folder it is in. */
export interface Resumable extends ResumePoint {
  readonly folder: RunFolder;
  readonly path: string;
  readonly saved: TrainingState;
  /** What was wrong with the folder's configuration and with newer checkpoints. */
  readonly warnings: readonly string[];
  /** Whether the folder's configuration was lost, and is to be written again. */
  readonly lacksRecord: boolean;
}

/** The images of a run, as its records name them. */
export function dataRecord({ name, length, fingerprint }: TrainOptions["data"]): TrainingState["data"] {
  return { name, images: length, fingerprint };
}

/** What a run's sums depend on: the backend, and how many share a batch. */
export function fingerprintOf({ fingerprint }: TrainOptions["backend"], { communicator: { size } }: Ranks): string {
  return size > 1 ? `${fingerprint}, ${size} ranks` : fingerprint;
}

/**
 * Whether the run in `out` can be continued so; undefined if it has no checkpoint yet. Reads no tensor. A damaged
 * checkpoint is passed over for the one before it, a lost configuration is taken from a checkpoint, and that is told.
 *
 * @throws {RangeError} naming what differs, or if another process writes into the folder
 * @throws {SyntaxError} if every checkpoint is damaged
 */
export async function checkResumable(
  plan: RunPlan,
  state: DinoState,
  { out, backend, data, reschedule = false }: TrainOptions,
  ranks: Ranks,
): Promise<Resumable | undefined> {
  if (out === undefined) throw new RangeError("--resume: wants the folder of the run in --out");
  const { folder, restored } = await RunFolder.open(out);
  try {
    await folder.lock();
    const damaged: SyntaxError[] = [];
    for (const path of await folder.resumable()) {
      try {
        const saved = await checkCheckpoint(path, checkpointTensors(state));
        const point = resumePoint(saved, plan, dataRecord(data), fingerprintOf(backend, ranks), reschedule);
        const older = damaged.map(({ message }) => `${message}: going on from ${path} of update ${saved.step}`);
        const warnings = restored === undefined ? older : [`${restored}, and written again`, ...older];
        return { folder, path, saved, warnings, lacksRecord: restored !== undefined, ...point };
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
        damaged.push(error);
      }
    }
    if (damaged.length > 0) {
      throw new SyntaxError(`${damaged[0].message}: no other checkpoint can be read: begin again with --overwrite`);
    }
    folder.close();
    return undefined;
  } catch (error) {
    folder.close();
    throw error;
  }
}

/** Fills the networks from the checkpoint and winds the log back to it. */
export async function resumeRun(
  plan: RunPlan,
  state: DinoState,
  options: TrainOptions,
  { folder, path, saved, step, notices, warnings, lacksRecord }: Resumable,
): Promise<RunStart> {
  const tell = teller(options);
  await readCheckpoint(path, options.backend, checkpointTensors(state));
  for (const message of notices) tell({ type: "notice", message });
  for (const message of warnings) tell({ type: "warning", message });
  if (!await folder.continueLog(saved.logBytes)) {
    tell({ type: "warning", message: `${folder.path}: log.jsonl lacks rows that the checkpoint knows of` });
  }
  if (options.reschedule || lacksRecord) {
    await folder.writeRecord({ config: plan.config, data: dataRecord(options.data) });
  }
  return {
    folder,
    latestPath: folder.latestPath,
    report: new RunReporter(plan, tell, folder, saved),
    step,
    optimizerSteps: saved.optimizerSteps,
    batchCounts: await readCheckpointCounts(path),
    lastCheckpoint: { path, step: saved.step },
  };
}

/** Fills new networks and makes the folder. */
export async function beginRun(plan: RunPlan, state: DinoState, options: TrainOptions): Promise<RunStart> {
  const { out, overwrite, resume, backend, data } = options;
  const tell = teller(options);
  const record = { config: plan.config, data: dataRecord(data) };
  const { notices, batchCounts } = await initializeState(backend, state, plan.config);
  let folder: RunFolder | undefined;
  if (out !== undefined) {
    if (resume) {
      folder = (await RunFolder.open(out)).folder;
      await folder.lock();
      await folder.writeRecord(record);
      await folder.continueLog(0);
      notices.push(`${out}: has no checkpoint yet: the run begins again`);
    } else folder = await RunFolder.create(out, record, overwrite);
  }
  for (const message of notices) tell({ type: "notice", message });
  return { folder, latestPath: folder?.latestPath, report: new RunReporter(plan, tell, folder), step: 0, batchCounts };
}

/** Starts every rank as the first one does. @param start of the first, elsewhere undefined */
export async function startTogether(
  plan: RunPlan,
  state: DinoState,
  options: TrainOptions,
  ranks: Ranks,
  start: RunStart | undefined,
): Promise<RunStart> {
  const told = await ranks.share(
    start && {
      latestPath: start.latestPath,
      step: start.step,
      optimizerSteps: start.optimizerSteps,
      lastCheckpoint: start.lastCheckpoint,
      sums: start.report.state,
    },
  );
  await ranks.shareTensors(options.backend, checkpointTensors(state).values());
  return start ?? { ...told!, report: new RunReporter(plan, teller(options), undefined, told!.sums) };
}

function teller({ onEvent }: TrainOptions): RunReporter["tell"] {
  return (event) => onEvent?.(event);
}
