// What a few labels are worth: k-NN with some images of each class, and logistic regression on a share of the labels.

import type { Backend } from "../../../models/graph/backend.ts";
import { scoreLogits } from "../classification.ts";
import { evaluateKnn, type LabelledFeatures, type NeighbourSearch, normalizeRows } from "../knn/knn.ts";
import { shareOfLabels, shotsOfEachClass } from "./label_subsets.ts";
import { LogisticRegression } from "./logistic.ts";

/** Top-1 accuracy over several draws of the labelled images, in percent. */
export interface FewShotResult {
  /** Images of each class, or the share of all labels. */
  readonly labels: number;
  /** Labelled images of the first draw. */
  readonly images: number;
  /** Over the draws. */
  readonly mean: number;
  /** Standard deviation over the draws; 0 for one draw. */
  readonly deviation: number;
  /** Of each draw. */
  readonly draws: readonly number[];
}

/**
 * k-NN from `shots` labelled images of each class: every labelled image votes up to `k`.
 *
 * @example One labelled image of each class
 * ```ts
 * import { fewShotKnn } from "../../../mod.ts";
 *
 * const train = { features: Float32Array.of(1, 0, 0.9, 0.1, 0, 1, 0.1, 0.9), labels: [0, 0, 1, 1], dim: 2 };
 * const test = { features: Float32Array.of(1, 0.2, 0.3, 1), labels: [0, 1], dim: 2 };
 * const { mean, images } = await fewShotKnn(train, test, { shots: 1, draws: 3, seed: 0 });
 * console.log(mean, images); // 100 2
 * ```
 */
export async function fewShotKnn(
  train: LabelledFeatures,
  test: LabelledFeatures,
  { shots, draws, seed, k = 20, temperature = 0.07, search }: {
    shots: number;
    draws: number;
    seed: number;
    k?: number;
    temperature?: number;
    search?: NeighbourSearch;
  },
): Promise<FewShotResult> {
  const found: number[] = [];
  let images = 0;
  for (let draw = 0; draw < draws; draw++) {
    const places = shotsOfEachClass(train.labels, shots, seed, draw);
    images ||= places.length;
    const ks = [Math.min(k, places.length)];
    const { accuracies } = await evaluateKnn(pick(train, places), test, { ks, temperature, search });
    found.push(accuracies[0].top1);
  }
  return summary(shots, images, found);
}

/** Penalties tried; features have length 1, so these go from nearly free to nearly uniform. */
export const PENALTIES: readonly number[] = [1e-6, 1e-5, 1e-4, 1e-3];

/**
 * Logistic regression on a share of the labels. The penalty is chosen on a fifth of those labels, then all of them are
 * used.
 */
export async function fewLabelsLogistic(
  backend: Backend,
  train: LabelledFeatures,
  test: LabelledFeatures,
  { share, draws, seed, penalties = PENALTIES, iterations, onFit = () => {} }: {
    share: number;
    draws: number;
    seed: number;
    penalties?: readonly number[];
    iterations?: number;
    onFit?: () => void;
  },
): Promise<FewShotResult & { readonly penalties: readonly number[] }> {
  const classes = 1 + Math.max(largest(train.labels), largest(test.labels));
  const unit = (set: LabelledFeatures) => ({ ...set, features: normalizeRows(set.features, set.dim) });
  const from = unit(train), to = unit(test);
  const accuracy = async (labelled: LabelledFeatures, asked: LabelledFeatures, penalty: number) => {
    const model = await LogisticRegression.fit(backend, { ...labelled, classes }, { penalty, iterations });
    const { top1 } = scoreLogits(await model.logits(asked.features), asked.labels, classes, asked.labels.length);
    model.dispose();
    onFit();
    return top1;
  };
  const found: number[] = [], chosen: number[] = [];
  let images = 0;
  for (let draw = 0; draw < draws; draw++) {
    const labelled = pick(from, shareOfLabels(from.labels, share, seed, draw));
    images ||= labelled.labels.length;
    const held = shareOfLabels(labelled.labels, 0.2, seed, draw);
    const isHeld = new Set(held);
    const kept = Uint32Array.from(labelled.labels as ArrayLike<number>, (_, i) => i).filter((i) => !isHeld.has(i));
    let best = penalties[0], bestTop1 = -1;
    for (const penalty of kept.length > 0 && penalties.length > 1 ? penalties : []) {
      const top1 = await accuracy(pick(labelled, kept), pick(labelled, held), penalty);
      if (top1 > bestTop1) [best, bestTop1] = [penalty, top1];
    }
    chosen.push(best);
    found.push(await accuracy(labelled, to, best));
  }
  return { ...summary(share, images, found), penalties: chosen };
}

function pick({ features, labels, dim }: LabelledFeatures, places: Uint32Array): LabelledFeatures {
  const chosen = new Float32Array(places.length * dim);
  places.forEach((place, i) => chosen.set(features.subarray(place * dim, (place + 1) * dim), i * dim));
  return { features: chosen, labels: Int32Array.from(places, (i) => labels[i]), dim };
}

function summary(labels: number, images: number, draws: number[]): FewShotResult {
  const mean = draws.reduce((a, b) => a + b, 0) / draws.length;
  const spread = draws.reduce((a, b) => a + (b - mean) ** 2, 0);
  return { labels, images, mean, deviation: draws.length > 1 ? Math.sqrt(spread / (draws.length - 1)) : 0, draws };
}

function largest(values: ArrayLike<number>): number {
  let max = 0;
  for (let i = 0; i < values.length; i++) max = Math.max(max, values[i]);
  return max;
}
