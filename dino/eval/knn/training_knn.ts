// k-NN while training goes on: before the first update, every few epochs, and at the end.

import type { Backend } from "../../../models/graph/backend.ts";
import type { PixelSource } from "../../data/dataset.ts";
import type { KnnRow, TrainEvent } from "../../run/events.ts";
import type { RunPlan } from "../../run/plan.ts";
import type { DinoState } from "../../state.ts";
import { KnnEvaluation } from "./knn_eval.ts";
import { evaluationSplit } from "./splits.ts";

/** Evaluations of a run when `knnEvery` is left open. */
const EVALUATIONS = 10;
/** Pairs of images up to which plain pixels are compared: 50 000 × 10 000 take a CPU half a minute. */
const PIXEL_PAIRS = 5e8;
/** Images of one pass, if the data has as many. */
const BATCH = 64;

/** Evaluates both networks of a run. */
export class TrainingKnn {
  readonly #noticed = new Set<string>();

  private constructor(
    readonly plan: RunPlan,
    readonly state: DinoState,
    readonly evaluation: KnnEvaluation,
    readonly tell: (event: TrainEvent) => void,
  ) {}

  /** Prepares evaluations; undefined if there are no labels, or none are wanted. */
  static create(
    plan: RunPlan,
    state: DinoState,
    backend: Backend,
    data: PixelSource,
    val: PixelSource | undefined,
    tell: (event: TrainEvent) => void,
  ): TrainingKnn | undefined {
    const { config, network } = plan;
    // A run of a few updates is a try: evaluating it would take longer than the run.
    if (config.knnEvery === 0 || config.knnEvery === null && config.steps !== null) return undefined;
    if (val && !val.labels) {
      const instead = data.labels ? "k-NN holds out a tenth of the other images" : "there is no k-NN";
      tell({ type: "warning", message: `--val ${val.name}: has no class folders, so ${instead}` });
    }
    const split = evaluationSplit(data, val?.labels ? val : undefined, config.seed);
    if (!split) return undefined;
    tell({ type: "notice", message: `k-NN classifies ${split.description}` });
    const evaluation = new KnnEvaluation(backend, split, {
      backbone: network.backbone,
      cropSize: config.globalCropSize,
      normalization: { mean: config.mean, deviation: config.std },
      batch: Math.min(BATCH, split.test.indices.length),
      ks: config.nbKnn,
      temperature: config.knnTemperature,
    });
    return new TrainingKnn(plan, state, evaluation, tell);
  }

  /** Accuracies before the first update: of the teacher, which is the student then, and of plain pixels. */
  async untrained(signal?: AbortSignal): Promise<KnnRow[]> {
    const { train, test } = this.evaluation.split;
    const rows = [await this.#row("teacher", 0, 0, signal)];
    if (train.indices.length * test.indices.length <= PIXEL_PAIRS) rows.push(await this.#row("pixels", 0, 0, signal));
    return rows;
  }

  /** Accuracies of both networks if it is time for them after so many epochs, else none. */
  async afterEpoch(epochs: number, step: number, signal?: AbortSignal): Promise<KnnRow[]> {
    const { config } = this.plan;
    const every = config.knnEvery ?? Math.max(1, Math.round(config.epochs / EVALUATIONS));
    if (epochs % every !== 0 && step < this.plan.lastStep) return [];
    return await this.#both(epochs, step, signal);
  }

  /** Accuracies of both networks where a run ends within an epoch. */
  async stopped(step: number, signal?: AbortSignal): Promise<KnnRow[]> {
    return step % this.plan.stepsPerEpoch === 0 ? [] : await this.#both(step / this.plan.stepsPerEpoch, step, signal);
  }

  dispose(): void {
    this.evaluation.dispose();
  }

  async #both(epochs: number, step: number, signal?: AbortSignal): Promise<KnnRow[]> {
    return [await this.#row("teacher", epochs, step, signal), await this.#row("student", epochs, step, signal)];
  }

  async #row(network: KnnRow["network"], epochs: number, step: number, signal?: AbortSignal): Promise<KnnRow> {
    const parameters = network === "student" ? this.state.studentParameters : this.state.teacherParameters;
    const { accuracies, notices } = network === "pixels"
      ? await this.evaluation.runPixels(signal)
      : await this.evaluation.run((name) => parameters(`backbone.${name}`), network, signal);
    for (const message of notices) {
      if (!this.#noticed.has(message)) this.tell({ type: "notice", message: `k-NN: ${message}` });
      this.#noticed.add(message);
    }
    return { network, epochs, step, accuracies };
  }
}
