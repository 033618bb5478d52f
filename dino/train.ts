// Training: epochs of updates that report, checkpoint, resume and stop.

import type { Backend, Executable } from "../models/graph/backend.ts";
import type { Program } from "../models/graph/program.ts";
import { batchesOfUpdate, countsAfter } from "./batch_counts.ts";
import { checkpointSize, RUN_FORMAT, type TrainingState, writeCheckpoint } from "./run/checkpoint.ts";
import { checkpointTensors } from "./run/checkpoint_tensors.ts";
import type { Config } from "./config.ts";
import { fitRecomputation } from "./memory/fit.ts";
import { TrainingKnn } from "./eval/knn/training_knn.ts";
import type { EndReason, KnnRow, TrainEvent } from "./run/events.ts";
import { centerNorm, diagnose } from "./monitor.ts";
import { withWhatFits } from "./memory/advice.ts";
import { Ranks } from "./ranks/ranks.ts";
import { heldMessage, RunFolder } from "./run/folder.ts";
import { planRun, type RunPlan, setUpStep, type StepSetup } from "./run/plan.ts";
import {
  beginRun,
  checkResumable,
  dataRecord,
  fingerprintOf,
  type Resumable,
  resumeRun,
  type RunStart,
  startTogether,
} from "./run/start.ts";
import { scheduledValues } from "./schedule.ts";
import { distinctPrograms } from "./step.ts";
import type { TrainOptions, TrainResult } from "./train_options.ts";
import { UpdateLoop } from "./update_loop.ts";

export type { TrainOptions, TrainResult } from "./train_options.ts";

/**
 * Trains a Vision Transformer with DINO.
 *
 * With the same configuration, images and backend two runs log the same values, interrupted or not. Several trainings that are
 * given communicators make every update together (see `ranksInProcess`).
 *
 * @example Two updates on the embedded sample
 * ```ts
 * import { defaultConfig, loadSample, openWasm, presets, train } from "../mod.ts";
 *
 * const backend = await openWasm({ threads: 1 });
 * const config = { ...defaultConfig(), ...presets.sample.values, depth: 1, steps: 2, knnEvery: 0 };
 * const { step, reason } = await train(config, { backend, data: await loadSample("train", 64) });
 * console.log(step, reason); // 2 "steps"
 * await backend.close();
 * ```
 *
 * @throws {TypeError | RangeError} for a configuration that cannot be, before anything is written, or is not every rank's
 * @throws {Error} if another rank fails, with its reason
 * @throws {SyntaxError} if a checkpoint or the folder's configuration cannot be read
 */
export async function train(config: Config, options: TrainOptions): Promise<TrainResult> {
  const ranks = new Ranks(options.communicator);
  try {
    const run = await begin(config, options, ranks);
    try {
      return await run.go();
    } finally {
      run.dispose();
    }
  } catch (error) {
    await ranks.communicator.abort((error as Error)?.message ?? String(error)); // the others must not wait for this one
    throw error;
  }
}

async function begin(config: Config, options: TrainOptions, ranks: Ranks): Promise<TrainingRun> {
  const { out, resume, overwrite, backend, data } = options;
  const plan = planRun(config, data, ranks.communicator);
  requirePrecision(config, backend);
  await ranks.requireSame({ config: plan.config, data: dataRecord(data), backend: backend.fingerprint });
  if (ranks.isFirst && out !== undefined && !resume && !overwrite && await RunFolder.holdsRun(out)) {
    throw new RangeError(heldMessage(out));
  }
  return await TrainingRun.prepare(plan, options, ranks);
}

/** What is recorded with a run must be what it is computed with. */
function requirePrecision({ precision }: Config, { precision: kept = "f32", description }: Backend): void {
  if (precision === kept) return;
  throw new RangeError(
    `--precision ${precision}: the backend (${description}) stores ${kept}: ` +
      (precision === "f16"
        ? "open WebGPU with precision f16, or use f32"
        : `use --precision ${kept}, or open it with f32`),
  );
}

class TrainingRun {
  readonly #updates: UpdateLoop;
  #lastCheckpoint: RunStart["lastCheckpoint"];
  #lastSave = performance.now();

  private constructor(
    private readonly plan: RunPlan,
    private readonly options: TrainOptions,
    private readonly setup: StepSetup,
    private readonly executables: ReadonlyMap<Program, Executable>,
    private readonly ranks: Ranks,
    private readonly start: RunStart,
  ) {
    this.#updates = new UpdateLoop(plan, options.backend, options.data, setup, executables, ranks, start);
    this.#lastCheckpoint = start.lastCheckpoint;
  }

  /** Checks what is to be resumed, compiles, fills the networks and opens the run folder. */
  static async prepare(wanted: RunPlan, options: TrainOptions, ranks: Ranks): Promise<TrainingRun> {
    const plan = await fitRecomputation(wanted, options.backend);
    const setup = setUpStep(plan), programs = distinctPrograms(setup.programs);
    const executables = new Map<Program, Executable>();
    const { state } = setup;
    let saved: Resumable | undefined, start: RunStart | undefined;
    try {
      if (ranks.isFirst && options.resume) saved = await checkResumable(plan, state, options, ranks);
      for (const program of programs) {
        executables.set(program, await options.backend.compile(program, ranks.communicator));
      }
      if (ranks.isFirst) {
        start = await (saved ? resumeRun(plan, state, options, saved) : beginRun(plan, state, options));
      }
      const together = await startTogether(plan, state, options, ranks, start);
      return new TrainingRun(plan, options, setup, executables, ranks, together);
    } catch (error) {
      (saved ?? start)?.folder?.close();
      release(options, setup, executables);
      for (const program of programs) options.backend.free(...program.roots());
      throw await withWhatFits(error, plan, options.backend);
    }
  }

  dispose(): void {
    release(this.options, this.setup, this.executables);
    this.start.folder?.close();
  }

  async go(): Promise<TrainResult> {
    const { plan, options: { data, val, backend }, setup: { state }, ranks: { communicator, isFirst } } = this;
    for (const message of plan.notices) this.#tell({ type: "notice", message });
    if (communicator.size > 1) {
      const { batchSize } = plan.config, { size, description } = communicator;
      const message = `${size} ranks share each batch, ${batchSize / size} of ${batchSize} images each: ${description}`;
      this.#tell({ type: "notice", message });
    }
    this.#tellStart();
    if (this.#updates.step === 0) {
      for (const { id, reason } of data.skipped) {
        await this.start.report.log({ kind: "skipped", id, reason });
        this.#tell({ type: "skipped", id, reason });
      }
    }
    const knn = isFirst ? TrainingKnn.create(plan, state, backend, data, val, this.#tell) : undefined;
    try {
      return await this.#end(await this.#run(knn), knn);
    } catch (error) {
      throw this.#withWayBack(error);
    } finally {
      knn?.dispose();
    }
  }

  async #run(knn: TrainingKnn | undefined): Promise<EndReason> {
    const { plan: { stepsPerEpoch, lastStep, totalSteps }, options: { signal }, start: { report, folder } } = this;
    const updates = this.#updates;
    const epochIsDone = () => updates.step > 0 && updates.step % stepsPerEpoch === 0 && report.epochIsOpen;
    const interim = {
      saveIsDue: () => !!folder && performance.now() - this.#lastSave > this.plan.config.saveMinutes * 60_000,
      save: () => this.#save(),
    };
    if (updates.step === 0) {
      const rows = await this.#evaluate(async () => await knn?.untrained(signal) ?? []);
      if (!rows) return "interrupted";
      await report.addKnn(rows);
    }
    this.#lastSave = performance.now();
    for (;;) {
      if (epochIsDone() && !await this.#finishEpoch(updates.step / stepsPerEpoch - 1, knn)) return "interrupted";
      if (await this.#isStopped()) return "interrupted";
      if (updates.step >= lastStep) return lastStep < totalSteps ? "steps" : "finished";
      report.startEpoch();
      await updates.epoch(Math.floor(updates.step / stepsPerEpoch), interim, signal);
      if (updates.nonFinite) return "non-finite";
      if (await this.#isStopped()) return "interrupted"; // even if the epoch is done: resuming finishes it
    }
  }

  /** Whether any rank was asked to stop. */
  async #isStopped(): Promise<boolean> {
    const [stopped] = await this.ranks.any(this.options.signal?.aborted ?? false);
    return stopped;
  }

  /** Lets the first rank evaluate while the others wait. Undefined on all of them if it was interrupted. */
  async #evaluate(run: () => Promise<readonly KnnRow[]>): Promise<readonly KnnRow[] | undefined> {
    const { signal } = this.options;
    let rows: readonly KnnRow[] = [], wasInterrupted = false;
    try {
      rows = await run();
    } catch (error) {
      if (!signal?.aborted || error !== signal.reason) throw error;
      wasInterrupted = true;
    }
    const [interrupted] = await this.ranks.any(wasInterrupted);
    return interrupted ? undefined : rows;
  }

  /** Evaluates if it is time, logs the epoch, saves. False if the evaluation was interrupted, before anything was written. */
  async #finishEpoch(epoch: number, knn: TrainingKnn | undefined): Promise<boolean> {
    const { plan: { config, stepsPerEpoch }, options: { backend, signal } } = this;
    const rows = await this.#evaluate(async () => await knn?.afterEpoch(epoch + 1, this.#updates.step, signal) ?? []);
    if (!rows) return false;
    const { loss, entropy } = this.start.report.epochMeans();
    const { advice } = diagnose({ entropy, kl: loss - entropy }, config.outDim);
    if (advice) await this.start.report.warn(this.#updates.step, advice);
    const { teacherTemp } = scheduledValues(config, stepsPerEpoch, this.#updates.step - 1);
    const { persistent, arena, workspace } = backend.memory;
    const norm = centerNorm(await backend.read(this.setup.state.center));
    await this.start.report.finishEpoch(epoch, this.#updates.step, teacherTemp, norm, persistent + arena + workspace);
    await this.start.report.addKnn(rows);
    await this.#save();
    if (this.start.folder && (epoch + 1) % config.saveckpFreq === 0) {
      await this.start.folder.keepLatest(epoch + 1);
      if (config.keep !== null) await this.start.folder.prune(config.keep);
    }
    return true;
  }

  /** Writes the latest checkpoint. */
  async #save(): Promise<void> {
    const { folder, latestPath: path } = this.start, { step } = this.#updates;
    const bytes = folder ? await this.#write(folder) : checkpointSize(checkpointTensors(this.setup.state));
    await this.ranks.communicator.barrier(); // the others know of it once it is there
    this.#lastSave = performance.now();
    if (path === undefined) return;
    this.#lastCheckpoint = { path, step };
    this.#tell({ type: "checkpoint", path, bytes, step, epoch: Math.floor((step - 1) / this.plan.stepsPerEpoch) });
  }

  /** Writes the checkpoint. @returns its bytes */
  async #write(folder: RunFolder): Promise<number> {
    const state: TrainingState = {
      format: RUN_FORMAT,
      config: this.plan.config,
      data: dataRecord(this.options.data),
      backend: fingerprintOf(this.options.backend, this.ranks),
      step: this.#updates.step,
      stepsPerEpoch: this.plan.stepsPerEpoch,
      optimizerSteps: this.#updates.optimizerSteps,
      ...this.start.report.state,
      logBytes: await folder.syncLog(),
    };
    const path = folder.latestPath;
    try {
      const { setup, start: { batchCounts, step }, options: { backend } } = this;
      const counts = countsAfter(batchCounts, batchesOfUpdate(setup.state, setup.programs), this.#updates.step - step);
      return await writeCheckpoint(path, backend, checkpointTensors(setup.state), state, counts);
    } catch (error) {
      throw new Error(
        `checkpoint after update ${this.#updates.step}: ${(error as Error).message}; ${this.#lastGood()}: ` +
          `${isFullDisk(error) ? "make room" : "see to the disk"}, then continue with --resume`,
        { cause: error },
      );
    }
  }

  /** An error of the device or of memory, with the checkpoint to go on from. */
  #withWayBack(error: unknown): unknown {
    if (!(error instanceof RangeError) && (error as Error)?.constructor !== Error) return error; // a bug, or a file's trouble
    const { message } = error as Error;
    if (this.start.latestPath === undefined || message.includes("--resume")) return error;
    const kind = error instanceof RangeError ? RangeError : Error;
    return new kind(`${message}; ${this.#lastGood()}: go on with --resume`, { cause: error });
  }

  #lastGood(): string {
    const { path, step } = this.#lastCheckpoint ?? {};
    return path === undefined ? "there is no checkpoint yet" : `the last good one is ${path} of update ${step}`;
  }

  async #end(reason: EndReason, knn: TrainingKnn | undefined): Promise<TrainResult> {
    const { plan: { lastStep, totalSteps, stepsPerEpoch }, setup: { state } } = this;
    let message: string | undefined;
    if (this.#updates.nonFinite) {
      const { step, values } = this.#updates.nonFinite;
      message =
        `the loss or a gradient of update ${step} is not finite, at learning rate ${
          values.lr.toPrecision(3)
        }: training stopped with the weights as they were before it; ${this.#lastGood()}: ` +
        "a lower --lr, a longer --warmup-epochs or a smaller --clip-grad may help" +
        (this.plan.config.precision === "f16" ? "; or a value beyond 65504, the most f16 holds: --precision f32" : "");
      this.#tell({ type: "warning", message });
    } else if (this.#updates.step > 0 && this.#lastCheckpoint?.step !== this.#updates.step) await this.#save();
    if (reason === "steps" && lastStep < totalSteps && knn) {
      await this.start.report.addKnn(await knn.stopped(this.#updates.step));
    }
    const epoch = Math.floor(this.#updates.step / stepsPerEpoch);
    const end = { reason, step: this.#updates.step, epoch, seconds: this.start.report.seconds, message };
    await this.start.report.log({ kind: "end", ...end });
    this.#tell({ type: "end", ...end });
    return { reason, step: this.#updates.step, knn: this.start.report.state.knn, state, message };
  }

  #tellStart(): void {
    const { plan, options: { data, backend }, setup: { state } } = this;
    const { config } = plan;
    const trained = state.trained().map(([tensor]) => [tensor.name, tensor.shape.reduce((a, b) => a * b, 1)] as const);
    const count = (part: string) => trained.reduce((sum, [name, n]) => name.includes(part) ? sum + n : sum, 0);
    this.#tell({
      type: "start",
      images: data.length,
      classes: data.classNames?.length ?? new Set(data.labels).size,
      stepsPerEpoch: plan.stepsPerEpoch,
      totalSteps: plan.totalSteps,
      lastStep: plan.lastStep,
      epochs: config.epochs,
      batchSize: config.batchSize,
      parameters: { backbone: count("backbone."), head: count("head.") },
      outDim: config.outDim,
      globalCropSize: config.globalCropSize,
      localCropSize: config.localCropSize,
      backend: `${backend.name}: ${backend.description}` +
        (this.ranks.communicator.size > 1 ? `, on ${this.ranks.communicator.size} ranks` : ""),
      checkpointBytes: checkpointSize(checkpointTensors(state)),
      resumedAt: this.#updates.step,
    });
  }

  readonly #tell = (event: TrainEvent): void => this.options.onEvent?.(event);
}

function isFullDisk(error: unknown): boolean {
  return (error as { code?: string }).code === "ENOSPC";
}

function release({ backend }: TrainOptions, { feed }: StepSetup, executables: ReadonlyMap<Program, Executable>): void {
  for (const executable of executables.values()) executable.dispose();
  backend.free(...feed.tensors());
}
