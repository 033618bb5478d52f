// Small labelled subsets of a data set: some images of each class, or a share of all labels spread over the classes.

import { CounterRandom, STREAM } from "../../../models/rng.ts";

/**
 * `shots` images of each class; all of a class that has fewer.
 *
 * @param draw which of the many possible subsets
 * @returns places in `labels`, ascending
 */
export function shotsOfEachClass(labels: ArrayLike<number>, shots: number, seed: number, draw: number): Uint32Array {
  return takeFromEachClass(labels, seed, draw, () => shots);
}

/**
 * A share of the labels, the same in every class but for rounding, and one image of each class at least.
 *
 * @param share above 0, at most 1
 */
export function shareOfLabels(labels: ArrayLike<number>, share: number, seed: number, draw: number): Uint32Array {
  if (!(share > 0 && share <= 1)) throw new RangeError(`labels: a share of ${share} is not above 0 and at most 1`);
  return takeFromEachClass(labels, seed, draw, (count) => Math.max(1, Math.round(share * count)));
}

function takeFromEachClass(
  labels: ArrayLike<number>,
  seed: number,
  draw: number,
  wanted: (count: number) => number,
): Uint32Array {
  const classes = new Map<number, number[]>();
  for (let i = 0; i < labels.length; i++) {
    const places = classes.get(labels[i]);
    if (places) places.push(i);
    else classes.set(labels[i], [i]);
  }
  const chosen: number[] = [];
  for (const [label, places] of classes) {
    const random = new CounterRandom(seed, STREAM.evaluation).restart(draw, label);
    chosen.push(...random.shuffle(Uint32Array.from(places)).slice(0, wanted(places.length)));
  }
  return Uint32Array.from(chosen).sort();
}
