// Tells from a few scalars whether training is collapsing, and what the paper and its users found to help.

/** Scalars of one update that show the state of the teacher. */
export interface TeacherStatistics {
  /** Mean entropy h of the teacher's softmax, in nats. */
  readonly entropy: number;
  /** Mean Kullback–Leibler divergence of the student from the teacher, in nats: cross-entropy − entropy. */
  readonly kl: number;
}

/** The two ways a self-distilled network collapses, and the state in between. */
export type CollapseKind = "none" | "uniform" | "one-hot";

/** What {@linkcode diagnose} found. */
export interface Diagnosis {
  /** Which collapse, if any. */
  readonly kind: CollapseKind;
  /** A sentence with the values and what to try; empty when nothing is wrong. */
  readonly advice: string;
}

/** Entropy of a teacher that gives every prototype the same probability: ln K, in nats. */
export function uniformEntropy(outDim: number): number {
  return Math.log(outDim);
}

// How near an entropy must be to its bound to count as having reached it. In healthy runs h lies well between.
const NEAR = 0.01;
// Below this divergence the student has nothing left to learn from the teacher (Fig. 7 of the paper).
const NO_SIGNAL = 1e-3;

/**
 * Judges means over at least a few dozen updates; a single one says little.
 *
 * Right after initialisation the teacher is nearly uniform with some divergence left, which is not a collapse.
 */
export function diagnose({ entropy, kl }: TeacherStatistics, outDim: number): Diagnosis {
  const bound = uniformEntropy(outDim);
  if (!(kl < NO_SIGNAL)) return { kind: "none", advice: "" };
  const state = `teacher entropy ${entropy.toFixed(4)} of ln K = ${bound.toFixed(4)}, KL ${kl.toExponential(1)}`;
  if (entropy > bound * (1 - NEAR)) {
    return {
      kind: "uniform",
      advice: `${state}: the teacher is uniform and nothing is learnt: lower --teacher-temp (0.02) ` +
        "and --warmup-teacher-temp, raise --freeze-last-layer, or lower --lr",
    };
  }
  if (entropy < bound * NEAR) {
    return {
      kind: "one-hot",
      advice: `${state}: one prototype takes all: raise --teacher-temp (0.04), ` +
        "or check that --center-momentum is 0.9 to 0.99",
    };
  }
  return { kind: "none", advice: "" };
}

/** Entropy, in nats, of each row of probabilities, averaged. @param probs [rows, K] */
export function meanEntropy(probs: ArrayLike<number>, outDim: number): number {
  let sum = 0;
  for (let i = 0; i < probs.length; i++) if (probs[i] > 0) sum -= probs[i] * Math.log(probs[i]);
  return sum / (probs.length / outDim);
}

/** Euclidean norm of the center. */
export function centerNorm(center: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < center.length; i++) sum += center[i] * center[i];
  return Math.sqrt(sum);
}

/**
 * How far features spread over the sphere: 1 when every direction is used alike, 0 when all images coincide.
 *
 * The standard deviation of each coordinate of L2-normalised rows, averaged, times √dim.
 *
 * @param features [n, dim], rows of length 1
 */
export function featureSpread(features: Float32Array, dim: number): number {
  const count = features.length / dim;
  let total = 0;
  for (let c = 0; c < dim; c++) {
    let [sum, squares] = [0, 0];
    for (let r = 0; r < count; r++) {
      const value = features[r * dim + c];
      sum += value;
      squares += value * value;
    }
    total += Math.sqrt(Math.max(0, squares / count - (sum / count) ** 2));
  }
  return total / dim * Math.sqrt(dim);
}
