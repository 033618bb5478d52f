// The update loop: feeds crops to the device, update after update, and looks at its scalars now and then.

import type { Backend, Executable } from "../models/graph/backend.ts";
import type { Program } from "../models/graph/program.ts";
import type { PixelSource } from "./data/dataset.ts";
import { prefetch } from "./data/prefetch.ts";
import { epochBatches } from "./epoch_batches.ts";
import { OptimizerSteps } from "./optimizer.ts";
import type { Ranks } from "./ranks/ranks.ts";
import type { RunPlan, StepSetup } from "./run/plan.ts";
import type { RunReporter } from "./run/reporter.ts";
import type { RunStart } from "./run/start.ts";
import { type ScheduledValues, scheduledValues } from "./schedule.ts";
import { metricsOfRow, RING_ROWS } from "./state.ts";

/** An update whose metrics may still be on the device. */
export interface SentUpdate {
  /** Its number, from 0. */
  readonly step: number;
  readonly values: ScheduledValues;
  /** What to go back to if it turns out to be non-finite. */
  readonly optimizerSteps: readonly number[];
}

/** Asked between updates, when all of them have been looked at. */
export interface Interim {
  /** Whether the loop should look at the device now and call `save`. */
  saveIsDue(): boolean;
  save(): Promise<void>;
}

/** Longest time between two looks at the device's scalars, each of which costs a GPU about ten milliseconds. */
const LOOK_MS = 1000;
/** Longest time without letting timers and signals in. */
const TURN_MS = 50;

/** Makes updates. Compiled programs and state are the caller's. */
export class UpdateLoop {
  /** Updates made. */
  #step: number;
  /** The first update that was not carried out because its loss or gradient was not finite. */
  #nonFinite?: SentUpdate;
  readonly #optimizer: OptimizerSteps;
  readonly #report: RunReporter;
  readonly #pending: SentUpdate[] = [];
  #lastLook = performance.now();
  #lastTurn = performance.now();

  constructor(
    private readonly plan: RunPlan,
    private readonly backend: Backend,
    private readonly data: PixelSource,
    private readonly setup: StepSetup,
    private readonly executables: ReadonlyMap<Program, Executable>,
    private readonly ranks: Ranks,
    start: RunStart,
  ) {
    this.#step = start.step;
    this.#report = start.report;
    this.#optimizer = new OptimizerSteps(plan.config, start.optimizerSteps);
  }

  get step(): number {
    return this.#step;
  }

  get nonFinite(): SentUpdate | undefined {
    return this.#nonFinite;
  }

  /** Adam's counts, one a parameter group. */
  get optimizerSteps(): readonly number[] {
    return this.#optimizer.steps;
  }

  /** Updates until the end of the epoch or of the run, or until something stops them. */
  async epoch(epoch: number, interim: Interim, signal?: AbortSignal): Promise<void> {
    const { plan, backend, data, setup: { feed, programs } } = this;
    const { accumulate, batchSize, seed } = plan.config;
    const before = epoch * plan.stepsPerEpoch;
    const end = Math.min(plan.lastStep, before + plan.stepsPerEpoch);
    const parts = epochBatches(data.length, seed, epoch, {
      batch: batchSize / accumulate,
      start: (this.#step - before) * accumulate,
      end: (end - before) * accumulate,
    }, plan.share);
    let running: Promise<void> | undefined;
    let part = 0, between = false;
    this.#lastLook = performance.now();
    try {
      for await (const pixels of prefetch(data, parts)) {
        feed.plan(pixels, pixels.indices, epoch); // on the host, while the device still works on what came before
        await running;
        if (between && await this.#settle(interim, signal)) break;
        between = false;
        if (part === 0) this.#writeSchedules();
        feed.write(backend, pixels, this.#step, part);
        running = this.#run(programs.parts[part]);
        part = (part + 1) % accumulate;
        if (part !== 0) continue;
        if (programs.update) {
          await running;
          running = this.#run(programs.update);
        }
        this.#step++;
        between = true;
        await this.#letOthersIn();
      }
      await running;
    } finally {
      await Promise.allSettled([running]); // an error elsewhere must not leave the device at work on freed buffers
    }
    await this.#look();
  }

  #run(program: Program): Promise<void> {
    const running = this.executables.get(program)!.run();
    running.catch(() => {}); // reported where it is awaited
    return running;
  }

  /** Between two updates: looks and saves if it is time for any rank. @returns whether there shall be no other update */
  async #settle(interim: Interim, signal?: AbortSignal): Promise<boolean> {
    const [look, save, stop] = await this.ranks.any(
      this.#lookIsDue(),
      interim.saveIsDue(),
      signal?.aborted ?? false,
    );
    if (look || save) await this.#look();
    if (save && !this.#nonFinite) await interim.save();
    return stop || this.#nonFinite !== undefined;
  }

  #lookIsDue(): boolean {
    return this.#pending.length === RING_ROWS || performance.now() - this.#lastLook > LOOK_MS;
  }

  async #letOthersIn(): Promise<void> {
    if (performance.now() - this.#lastTurn < TURN_MS) return;
    await new Promise((resolve) => setTimeout(resolve, 0));
    this.#lastTurn = performance.now();
  }

  /** Tells the device the scalars of the next update. */
  #writeSchedules(): void {
    const { backend, plan, setup: { state } } = this;
    const values = scheduledValues(plan.config, plan.stepsPerEpoch, this.#step);
    this.#pending.push({ step: this.#step, values, optimizerSteps: this.#optimizer.steps });
    const { teacherTemp, momentum: teacherMomentum } = values, groups = this.#optimizer.next(values);
    state.writeScalars(backend, { groups, teacherTemp, teacherMomentum, ringRow: this.#pending.length - 1 });
  }

  /** Reads the metrics of the updates since the last look, in their order. */
  async #look(): Promise<void> {
    if (this.#pending.length === 0) return;
    const { backend, setup: { state } } = this;
    const ring = await backend.read(state.ring);
    let last: SentUpdate | undefined;
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
}
