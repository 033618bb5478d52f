// Means over updates, epochs and windows, told as events and written as rows of the log.

import type { KnnRow, LogRow, TrainEvent } from "./events.ts";
import { RunningMean, type SavedSums } from "./metrics.ts";
import type { RunFolder } from "./folder.ts";
import type { RunPlan } from "./plan.ts";
import type { ScheduledValues } from "../schedule.ts";

const EPOCH_MEANS = ["loss", "entropy", "lr", "weightDecay", "momentum"] as const;
const WINDOW_MEANS = ["loss", "entropy"] as const;

/** Looks by whose median the time left is told: a machine that slept in one of them does not change it. */
const PACES = 15;

/** An update that was made. */
export interface AppliedUpdate {
  /** Its number, from 0. */
  readonly step: number;
  readonly values: ScheduledValues;
  readonly loss: number;
  readonly entropy: number;
}

/** What a checkpoint keeps of the reports. */
export interface ReporterState {
  readonly epochSums: SavedSums;
  readonly windowSums: SavedSums;
  readonly knn: readonly KnnRow[];
}

/** Tells and logs what happens in a run. Rows of the log do not depend on when the device was looked at. */
export class RunReporter {
  readonly #epochSums: RunningMean<typeof EPOCH_MEANS[number]>;
  readonly #windowSums: RunningMean<typeof WINDOW_MEANS[number]>;
  readonly #shownSums = new RunningMean(WINDOW_MEANS);
  readonly #knn: KnnRow[];
  readonly #started = performance.now();
  #epochStarted = performance.now();
  #lastShown = performance.now();
  /** Seconds an update took, between the last few looks. */
  readonly #paces: number[] = [];

  /**
   * @param folder receives the log; without it there is none
   * @param saved sums to go on with
   */
  constructor(
    readonly plan: RunPlan,
    readonly tell: (event: TrainEvent) => void,
    readonly folder?: RunFolder,
    saved?: ReporterState,
  ) {
    this.#epochSums = new RunningMean(EPOCH_MEANS, saved?.epochSums);
    this.#windowSums = new RunningMean(WINDOW_MEANS, saved?.windowSums);
    this.#knn = [...saved?.knn ?? []];
  }

  /** To be put into a checkpoint. */
  get state(): ReporterState {
    return { epochSums: this.#epochSums.toJSON(), windowSums: this.#windowSums.toJSON(), knn: this.#knn };
  }

  /** Seconds since this process began the run. */
  get seconds(): number {
    return (performance.now() - this.#started) / 1000;
  }

  /** True if updates were added since the last finished epoch. */
  get epochIsOpen(): boolean {
    return this.#epochSums.count > 0;
  }

  async log(row: LogRow): Promise<void> {
    await this.folder?.appendLog(row);
  }

  async warn(step: number, message: string): Promise<void> {
    await this.log({ kind: "warning", step, message });
    this.tell({ type: "warning", message });
  }

  /** Takes in one update; every `logEvery`-th makes a row. */
  async add(update: AppliedUpdate): Promise<void> {
    const { step, values, loss, entropy } = update;
    this.#epochSums.add({ loss, entropy, lr: values.lr, weightDecay: values.weightDecay, momentum: values.momentum });
    this.#windowSums.add(update);
    this.#shownSums.add(update);
    if ((step + 1) % this.plan.config.logEvery !== 0) return;
    const means = this.#windowSums.means();
    this.#windowSums.clear();
    await this.log({
      kind: "step",
      step: step + 1,
      epoch: Math.floor(step / this.plan.stepsPerEpoch),
      loss: means.loss,
      entropy: means.entropy,
      kl: means.loss - means.entropy,
      lr: values.lr,
      weight_decay: values.weightDecay,
      momentum: values.momentum,
      teacher_temp: values.teacherTemp,
    });
  }

  /** Forgets the time that was spent on something else than updates. */
  restartClock(): void {
    this.#lastShown = performance.now();
  }

  /** Forgets the time before the first update of an epoch. */
  startEpoch(): void {
    this.#epochStarted = this.#lastShown = performance.now();
  }

  /** Tells the means since the last call. @param last update of them */
  show({ step, values }: Pick<AppliedUpdate, "step" | "values">): void {
    const { count } = this.#shownSums;
    if (count === 0) return;
    const { loss, entropy } = this.#shownSums.means();
    this.#shownSums.clear();
    const now = performance.now();
    const secondsPerUpdate = (now - this.#lastShown) / 1000 / count;
    this.#lastShown = now;
    this.#paces.push(secondsPerUpdate);
    if (this.#paces.length > PACES) this.#paces.shift();
    this.tell({
      type: "step",
      step: step + 1,
      epoch: Math.floor(step / this.plan.stepsPerEpoch),
      loss,
      entropy,
      kl: loss - entropy,
      lr: values.lr,
      weightDecay: values.weightDecay,
      momentum: values.momentum,
      teacherTemp: values.teacherTemp,
      imagesPerSecond: this.plan.config.batchSize / secondsPerUpdate,
      secondsLeft: (this.plan.lastStep - step - 1) * median(this.#paces),
    });
  }

  /** Loss and entropy of the epoch so far. */
  epochMeans(): { loss: number; entropy: number } {
    return this.#epochSums.means();
  }

  /** Ends an epoch with its row. @param bytes that the device holds */
  async finishEpoch(
    epoch: number,
    step: number,
    teacherTemp: number,
    centerNorm: number,
    bytes: number,
  ): Promise<void> {
    const { count } = this.#epochSums;
    const means = this.#epochSums.means();
    this.#epochSums.clear();
    const seconds = (performance.now() - this.#epochStarted) / 1000;
    const row = {
      train_loss: means.loss,
      train_lr: means.lr,
      train_wd: means.weightDecay,
      epoch,
      step,
      train_entropy: means.entropy,
      train_kl: means.loss - means.entropy,
      train_momentum: means.momentum,
      teacher_temp: teacherTemp,
      center_norm: centerNorm,
      seconds,
      images_per_second: count * this.plan.config.batchSize / seconds,
      memory_bytes: bytes,
    };
    await this.log({ kind: "epoch", ...row });
    this.tell({ type: "epoch", row });
  }

  /** Logs results of k-NN; the untrained ones and the latest are kept for the end. */
  async addKnn(rows: readonly KnnRow[]): Promise<void> {
    const untrained = this.#knn.filter((row) => row.epochs === 0);
    this.#knn.splice(0, this.#knn.length, ...untrained, ...rows);
    for (const row of rows) {
      await this.log({ kind: "knn", ...row });
      this.tell({ type: "knn", row });
    }
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}
