// Training: epochs of updates that report, checkpoint, resume and stop.

import type { Backend, Executable } from "../models/graph/backend.ts";
import type { Program } from "../models/graph/program.ts";
import { checkCheckpoint, checkpointSize, readCheckpoint, type TrainingState, writeCheckpoint } from "./checkpoint.ts";
import { checkpointTensors } from "./checkpoint_tensors.ts";
import type { Config } from "./config.ts";
import type { PixelSource } from "./data/dataset.ts";
import { prefetch } from "./data/prefetch.ts";
import { epochBatches } from "./epoch_batches.ts";
import { TrainingKnn } from "./eval/training_knn.ts";
import type { EndReason, KnnRow, TrainEvent } from "./events.ts";
import { initializeState } from "./initialize.ts";
import { centerNorm, diagnose } from "./monitor.ts";
import { OptimizerSteps } from "./optimizer.ts";
import { type ResumePoint, resumePoint } from "./resume.ts";
import { heldMessage, RUN_FORMAT, RunFolder } from "./run_folder.ts";
import { planRun, type RunPlan, setUpStep, type StepSetup } from "./run_plan.ts";
import { RunReporter } from "./run_reporter.ts";
import { type ScheduledValues, scheduledValues } from "./schedule.ts";
import { type DinoState, metricsOfRow, RING_ROWS } from "./state.ts";

/** What training is given besides hyperparameters. */
export interface TrainOptions {
  /** Computes; opened and closed by the caller. */
  readonly backend: Backend;
  /** Images to train on. */
  readonly data: PixelSource;
  /** Labelled images to classify by k-NN; without it a tenth of `data` is, if that has labels. */
  readonly val?: PixelSource;
  /** Run folder. Without it nothing is written. */
  readonly out?: string;
  /** Continue the run in `out`. One that has no checkpoint yet begins again. */
  readonly resume?: boolean;
  /** With `resume`: accept a configuration that bends the schedules. */
  readonly reschedule?: boolean;
  /** Replace the run in `out`. */
  readonly overwrite?: boolean;
  /** Aborting it saves a checkpoint after the update at hand and ends training. */
  readonly signal?: AbortSignal;
  /** Is told everything that happens, in order. */
  readonly onEvent?: (event: TrainEvent) => void;
}

/** How training ended. */
export interface TrainResult {
  /** Why it ended. */
  readonly reason: EndReason;
  /** Updates made. */
  readonly step: number;
  /** k-NN of the untrained network and of pixels, if there were labels, and the last ones of the run. */
  readonly knn: readonly KnnRow[];
  /** Both networks, on the device. */
  readonly state: DinoState;
  /** For `non-finite`: what happened, and the last good checkpoint. */
  readonly message?: string;
}

/**
 * Trains a Vision Transformer with DINO.
 *
 * With the same configuration, images and backend two runs log the same values, interrupted or not.
 *
 * @throws {TypeError | RangeError} for a configuration that cannot be, before anything is written
 * @throws {SyntaxError} if a checkpoint or the folder's configuration cannot be read
 */
export async function train(config: Config, options: TrainOptions): Promise<TrainResult> {
  const { out, resume, overwrite } = options;
  const plan = planRun(config, options.data);
  if (out !== undefined && !resume && !overwrite && await RunFolder.holdsRun(out)) {
    throw new RangeError(heldMessage(out));
  }
  const run = await TrainingRun.prepare(plan, options);
  try {
    return await run.go();
  } finally {
    run.dispose();
  }
}

/** An update whose metrics are still on the device. */
interface PendingUpdate {
  /** Its number, from 0. */
  readonly step: number;
  readonly values: ScheduledValues;
  /** What to go back to if it turns out to be non-finite. */
  readonly optimizerSteps: readonly number[];
}

/** Longest time between two looks at the device's scalars, each of which costs a GPU about ten milliseconds. */
const LOOK_MS = 1000;
/** Longest time without letting timers and signals in. */
const TURN_MS = 50;

class TrainingRun {
  /** Updates made. */
  #step = 0;
  #optimizer: OptimizerSteps;
  #report: RunReporter;
  #folder?: RunFolder;
  #lastCheckpoint?: { path: string; step: number };
  /** The first update that was not carried out because its loss or gradient was not finite. */
  #nonFinite?: PendingUpdate;
  readonly #pending: PendingUpdate[] = [];
  #lastLook = performance.now();
  #lastSave = performance.now();
  #lastTurn = performance.now();

  private constructor(
    private readonly plan: RunPlan,
    private readonly options: TrainOptions,
    private readonly setup: StepSetup,
    private readonly executables: ReadonlyMap<Program, Executable>,
  ) {
    this.#optimizer = new OptimizerSteps(plan.config);
    this.#report = new RunReporter(plan, this.#tell);
  }

  /** Checks what is to be resumed, compiles, fills the networks and opens the run folder. */
  static async prepare(plan: RunPlan, options: TrainOptions): Promise<TrainingRun> {
    const setup = setUpStep(plan);
    const executables = new Map<Program, Executable>();
    const run = new TrainingRun(plan, options, setup, executables);
    try {
      const saved = options.resume ? await run.#checkResumable() : undefined;
      for (const program of [...setup.programs.parts, ...setup.programs.update ? [setup.programs.update] : []]) {
        if (!executables.has(program)) executables.set(program, await options.backend.compile(program));
      }
      if (saved) await run.#resume(saved);
      else await run.#begin();
      return run;
    } catch (error) {
      run.dispose();
      throw error;
    }
  }

  dispose(): void {
    for (const executable of this.executables.values()) executable.dispose();
    this.options.backend.free(...this.setup.feed.tensors());
    this.#folder?.close();
  }

  /** Whether the run in the folder can be continued so; undefined if it has no checkpoint yet. */
  async #checkResumable(): Promise<(ResumePoint & { folder: RunFolder; saved: TrainingState }) | undefined> {
    const { out, backend, reschedule = false } = this.options;
    if (out === undefined) throw new RangeError("--resume: wants the folder of the run in --out");
    const { folder } = await RunFolder.open(out);
    try {
      const saved = await checkCheckpoint(folder.latestPath, checkpointTensors(this.setup.state));
      return { folder, saved, ...resumePoint(saved, this.plan, this.#data(), backend.fingerprint, reschedule) };
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  }

  /** Goes on from the latest checkpoint. */
  async #resume(
    { folder, saved, step, notices }: ResumePoint & { folder: RunFolder; saved: TrainingState },
  ): Promise<void> {
    const path = folder.latestPath;
    await readCheckpoint(path, this.options.backend, checkpointTensors(this.setup.state));
    this.#step = step;
    this.#optimizer = new OptimizerSteps(this.plan.config, saved.optimizerSteps);
    this.#lastCheckpoint = { path, step: saved.step };
    this.#folder = folder;
    this.#report = new RunReporter(this.plan, this.#tell, folder, saved);
    for (const message of notices) this.#tell({ type: "notice", message });
    if (!await folder.continueLog(saved.logBytes)) {
      this.#tell({ type: "warning", message: `${folder.path}: log.jsonl lacks rows that the checkpoint knows of` });
    }
    if (this.options.reschedule) await folder.writeRecord(this.#record());
  }

  /** Fills new networks and makes the folder. */
  async #begin(): Promise<void> {
    const { out, overwrite, resume, backend } = this.options;
    const notices = await initializeState(backend, this.setup.state, this.plan.config);
    if (out !== undefined) {
      if (resume) {
        this.#folder = (await RunFolder.open(out)).folder;
        await this.#folder.writeRecord(this.#record());
        await this.#folder.continueLog(0);
        notices.push(`${out}: has no checkpoint yet: the run begins again`);
      } else this.#folder = await RunFolder.create(out, this.#record(), overwrite);
    }
    this.#report = new RunReporter(this.plan, this.#tell, this.#folder);
    for (const message of notices) this.#tell({ type: "notice", message });
  }

  async go(): Promise<TrainResult> {
    const { plan, options: { data, val, backend, signal }, setup: { state } } = this;
    for (const message of plan.notices) this.#tell({ type: "notice", message });
    this.#tellStart();
    if (this.#step === 0) {
      for (const { id, reason } of data.skipped) {
        await this.#report.log({ kind: "skipped", id, reason });
        this.#tell({ type: "skipped", id, reason });
      }
    }
    const knn = TrainingKnn.create(plan, state, backend, data, val, this.#tell);
    try {
      return await this.#end(await this.#run(knn), knn);
    } catch (error) {
      // An interrupted evaluation leaves the update before it to be saved.
      if (signal?.aborted && error === signal.reason) return await this.#end("interrupted", undefined);
      throw error;
    } finally {
      knn?.dispose();
    }
  }

  async #run(knn: TrainingKnn | undefined): Promise<EndReason> {
    const { plan: { stepsPerEpoch, lastStep, totalSteps }, options: { signal } } = this;
    const epochIsDone = () => this.#step > 0 && this.#step % stepsPerEpoch === 0 && this.#report.epochIsOpen;
    if (this.#step === 0 && knn) await this.#report.addKnn(await knn.untrained(signal));
    this.#lastSave = performance.now();
    for (;;) {
      if (epochIsDone()) await this.#finishEpoch(this.#step / stepsPerEpoch - 1, knn);
      if (signal?.aborted) return "interrupted";
      if (this.#step >= lastStep) return lastStep < totalSteps ? "steps" : "finished";
      this.#report.startEpoch();
      await this.#epoch(Math.floor(this.#step / stepsPerEpoch));
      if (this.#nonFinite) return "non-finite";
      if (signal?.aborted) return "interrupted"; // even if the epoch is done: resuming finishes it
    }
  }

  /** Updates until the end of the epoch or of the run, or until something stops them. */
  async #epoch(epoch: number): Promise<void> {
    const { plan, options: { backend, data, signal }, setup: { feed, programs } } = this;
    const { accumulate, batchSize, seed } = plan.config;
    const before = epoch * plan.stepsPerEpoch;
    const end = Math.min(plan.lastStep, before + plan.stepsPerEpoch);
    const parts = epochBatches(data.length, seed, epoch, {
      batch: batchSize / accumulate,
      start: (this.#step - before) * accumulate,
      end: (end - before) * accumulate,
    });
    let running: Promise<void> | undefined;
    let part = 0;
    this.#lastLook = performance.now();
    try {
      for await (const pixels of prefetch(data, parts)) {
        feed.plan(pixels, pixels.indices, epoch); // on the host, while the device still works on what came before
        await running;
        if (part === 0) this.#writeSchedules();
        feed.write(backend, pixels, this.#step, part);
        running = this.executables.get(programs.parts[part])!.run();
        part = (part + 1) % accumulate;
        if (part !== 0) continue;
        if (programs.update) {
          await running;
          running = this.executables.get(programs.update)!.run();
        }
        this.#step++;
        if (this.#pending.length === RING_ROWS || performance.now() - this.#lastLook > LOOK_MS || this.#saveIsDue()) {
          await running;
          await this.#look();
          if (this.#saveIsDue() && !this.#nonFinite && this.#step < end) await this.#save();
        }
        await this.#letOthersIn();
        if (this.#nonFinite || signal?.aborted) break;
      }
      await running;
    } finally {
      await Promise.allSettled([running]); // an error elsewhere must not leave the device at work on freed buffers
    }
    await this.#look();
  }

  #saveIsDue(): boolean {
    return this.#folder !== undefined && performance.now() - this.#lastSave > this.plan.config.saveMinutes * 60_000;
  }

  async #letOthersIn(): Promise<void> {
    if (performance.now() - this.#lastTurn < TURN_MS) return;
    await new Promise((resolve) => setTimeout(resolve, 0));
    this.#lastTurn = performance.now();
  }

  /** Tells the device the scalars of the next update. */
  #writeSchedules(): void {
    const { backend } = this.options;
    const { groups, scalars } = this.setup.state;
    const values = scheduledValues(this.plan.config, this.plan.stepsPerEpoch, this.#step);
    this.#pending.push({ step: this.#step, values, optimizerSteps: this.#optimizer.steps });
    backend.write(groups, this.#optimizer.next(values));
    backend.write(scalars.get("teacherTemp"), Float32Array.of(values.teacherTemp));
    backend.write(scalars.get("teacherMomentum"), Float32Array.of(values.momentum));
    backend.write(scalars.get("ringRow"), Float32Array.of(this.#pending.length - 1));
  }

  /** Reads the metrics of the updates since the last look, in their order. */
  async #look(): Promise<void> {
    if (this.#pending.length === 0) return;
    const { state } = this.setup;
    const ring = await this.options.backend.read(state.ring);
    let last: PendingUpdate | undefined;
    for (const [row, update] of this.#pending.entries()) {
      const { loss, teacherEntropy: entropy, frozen } = metricsOfRow(state, ring, row);
      if (frozen !== 0) {
        // From here on the device changed nothing, so none of these updates was made.
        this.#nonFinite = update;
        this.#step = update.step;
        break;
      }
      await this.#report.add({ ...update, loss, entropy });
      last = update;
    }
    this.#pending.length = 0;
    this.#lastLook = performance.now();
    if (last) this.#report.show(last);
  }

  /** Evaluates if it is time, logs the epoch, saves. */
  async #finishEpoch(epoch: number, knn: TrainingKnn | undefined): Promise<void> {
    const { plan: { config, stepsPerEpoch }, options: { backend, signal } } = this;
    const rows = await knn?.afterEpoch(epoch + 1, this.#step, signal) ?? []; // may be interrupted: before any row is written
    const { loss, entropy } = this.#report.epochMeans();
    const { advice } = diagnose({ entropy, kl: loss - entropy }, config.outDim);
    if (advice) await this.#report.warn(this.#step, advice);
    const { teacherTemp } = scheduledValues(config, stepsPerEpoch, this.#step - 1);
    const { persistent, arena, workspace } = backend.memory;
    const norm = centerNorm(await backend.read(this.setup.state.center));
    await this.#report.finishEpoch(epoch, this.#step, teacherTemp, norm, persistent + arena + workspace);
    await this.#report.addKnn(rows);
    await this.#save();
    if (this.#folder && (epoch + 1) % config.saveckpFreq === 0) {
      await this.#folder.keepLatest(epoch + 1);
      if (config.keep !== null) await this.#folder.prune(config.keep);
    }
  }

  /** Writes the latest checkpoint. */
  async #save(): Promise<void> {
    const folder = this.#folder;
    if (!folder) return;
    const state: TrainingState = {
      format: RUN_FORMAT,
      config: this.plan.config,
      data: this.#data(),
      backend: this.options.backend.fingerprint,
      step: this.#step,
      stepsPerEpoch: this.plan.stepsPerEpoch,
      optimizerSteps: this.#optimizer.steps,
      ...this.#report.state,
      logBytes: await folder.syncLog(),
    };
    const path = folder.latestPath;
    let bytes: number;
    try {
      bytes = await writeCheckpoint(path, this.options.backend, checkpointTensors(this.setup.state), state);
    } catch (error) {
      throw new Error(
        `checkpoint after update ${this.#step}: ${(error as Error).message}; ${this.#lastGood()}: ` +
          "make room, then continue with --resume",
        { cause: error },
      );
    }
    this.#lastCheckpoint = { path, step: this.#step };
    this.#lastSave = performance.now();
    const epoch = Math.floor((this.#step - 1) / this.plan.stepsPerEpoch);
    this.#tell({ type: "checkpoint", path, bytes, step: this.#step, epoch });
  }

  #lastGood(): string {
    const { path, step } = this.#lastCheckpoint ?? {};
    return path === undefined ? "there is no checkpoint yet" : `the last good one is ${path} of update ${step}`;
  }

  async #end(reason: EndReason, knn: TrainingKnn | undefined): Promise<TrainResult> {
    const { plan: { lastStep, totalSteps, stepsPerEpoch }, setup: { state } } = this;
    let message: string | undefined;
    if (this.#nonFinite) {
      const { step, values } = this.#nonFinite;
      message =
        `the loss or a gradient of update ${step} is not finite, at learning rate ${
          values.lr.toPrecision(3)
        }: training stopped with the weights as they were before it; ${this.#lastGood()}: ` +
        "a lower --lr, a longer --warmup-epochs or a smaller --clip-grad may help";
      this.#tell({ type: "warning", message });
    } else if (this.#step > 0 && this.#lastCheckpoint?.step !== this.#step) await this.#save();
    if (reason === "steps" && lastStep < totalSteps && knn) await this.#report.addKnn(await knn.stopped(this.#step));
    const epoch = Math.floor(this.#step / stepsPerEpoch);
    const end = { reason, step: this.#step, epoch, seconds: this.#report.seconds, message };
    await this.#report.log({ kind: "end", ...end });
    this.#tell({ type: "end", ...end });
    return { reason, step: this.#step, knn: this.#report.state.knn, state, message };
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
      backend: `${backend.name}: ${backend.description}`,
      checkpointBytes: checkpointSize(checkpointTensors(state)),
      resumedAt: this.#step,
    });
  }

  #data(): TrainingState["data"] {
    const { name, length, fingerprint } = this.options.data;
    return { name, images: length, fingerprint };
  }

  #record() {
    return { config: this.plan.config, data: this.#data() };
  }

  readonly #tell = (event: TrainEvent): void => this.options.onEvent?.(event);
}
