// Mixing the images of a batch in pairs, by shares (mixup) or by a rectangle (CutMix), and the targets that follow.

import { CounterRandom, STREAM } from "../../../models/rng.ts";

/** A rectangle of a crop, in pixels. */
export interface Rectangle {
  readonly top: number;
  readonly left: number;
  readonly height: number;
  readonly width: number;
}

/** How image i of a batch is mixed with its partner from the other end, image n − 1 − i. */
export interface Mixing {
  /** What is left of the image itself: the weight of its label. */
  readonly own: number;
  /** The part that the partner covers; without it each pixel is own · image + (1 − own) · partner. */
  readonly box?: Rectangle;
}

/** Shape parameters of the two Beta distributions; 0 leaves a kind out. */
export interface MixingOptions {
  /** Of mixup. */
  readonly mixup: number;
  /** Of CutMix. */
  readonly cutmix: number;
}

/** Draws how a batch is mixed: one of the two kinds, each as often as the other, where both are wanted. */
export function drawMixing({ mixup, cutmix }: MixingOptions, side: number, seed: number, step: number): Mixing {
  const random = new CounterRandom(seed, STREAM.evaluation, step, 1);
  if (mixup === 0 && cutmix === 0) return { own: 1 };
  if (cutmix === 0 || (mixup > 0 && random.chance(0.5))) return { own: beta(random, mixup) };
  const ratio = Math.sqrt(1 - beta(random, cutmix));
  const half = Math.trunc(Math.trunc(side * ratio) / 2);
  const [y, x] = [random.integer(side), random.integer(side)];
  const clip = (v: number) => Math.min(side, Math.max(0, v));
  const top = clip(y - half), left = clip(x - half);
  const box = { top, left, height: clip(y + half) - top, width: clip(x + half) - left };
  return { own: 1 - box.height * box.width / side ** 2, box };
}

/**
 * Targets of a batch.
 *
 * @param labels of its first images; the others count for nothing
 * @param smoothing share of each label that is spread over all classes
 * @returns [batch, classes]
 */
export function mixedTargets(
  labels: ArrayLike<number>,
  batch: number,
  classes: number,
  own: number,
  smoothing: number,
): Float32Array<ArrayBuffer> {
  const targets = new Float32Array(batch * classes), n = labels.length;
  for (let i = 0; i < n; i++) {
    targets.fill(smoothing / classes, i * classes, (i + 1) * classes);
    targets[i * classes + labels[i]] += own * (1 - smoothing);
    targets[i * classes + labels[n - 1 - i]] += (1 - own) * (1 - smoothing);
  }
  return targets;
}

/** A draw from Beta(a, a): Jöhnk's method, which suits a ≤ 1. */
export function beta(random: CounterRandom, a: number): number {
  for (;;) {
    const x = random.float() ** (1 / a), y = random.float() ** (1 / a);
    if (x + y > 0 && x + y <= 1) return x / (x + y);
  }
}
