// What changes from update to update: learning rate, weight decay, teacher momentum and teacher temperature.

import type { Config } from "./config.ts";

/** A cosine with a linear warm-up before it, in updates. */
export interface CosineOptions {
  /** Value at the end of the warm-up and at the beginning of the cosine. */
  readonly base: number;
  /** Value the cosine tends to; it is never quite reached, because the last update is one short of half a period. */
  readonly final: number;
  /** Updates of the whole run. */
  readonly total: number;
  /** Updates of the warm-up; 0 by default. */
  readonly warmup?: number;
  /** Value of the first update when there is a warm-up; 0 by default. */
  readonly start?: number;
}

/**
 * Value before update `step`, as the reference computes it: the warm-up contains both of its ends, so `base` occurs
 * twice, and the first update of a warm-up from 0 changes no weight.
 *
 * @param step updates already made
 * @throws {RangeError} if `step` is not an update of the run, or `warmup` exceeds `total`
 */
export function cosineAt(step: number, { base, final, total, warmup = 0, start = 0 }: CosineOptions): number {
  if (!(warmup <= total)) throw new RangeError(`schedule: a warm-up of ${warmup} updates exceeds the run of ${total}`);
  if (!(step >= 0 && step < total)) throw new RangeError(`schedule: update ${step} is not one of 0 to ${total - 1}`);
  if (step < warmup) return linear(step, start, base, warmup);
  const cosine = Math.cos(Math.PI * (step - warmup) / (total - warmup));
  return final + 0.5 * (base - final) * (1 + cosine);
}

/** Point `i` of `n` evenly spaced ones that include both ends; a single point is the first end. */
function linear(i: number, start: number, end: number, n: number): number {
  if (n > 1 && i === n - 1) return end;
  return n > 1 ? i * ((end - start) / (n - 1)) + start : start;
}

/** Peak learning rate of a batch: `lr` is stated for `referenceBatch` images and grows in proportion. */
export function scaleLr(lr: number, batchSize: number, referenceBatch = 256): number {
  return lr * batchSize / referenceBatch;
}

/** Teacher temperature of an epoch: from `warm` to `final` in `warmupEpochs` epochs, both ends included, then `final`. */
export function teacherTempAt(epoch: number, warm: number, final: number, warmupEpochs: number): number {
  return epoch < warmupEpochs ? linear(epoch, warm, final, warmupEpochs) : final;
}

/** What the schedules say about one update. */
export interface ScheduledValues {
  /** Learning rate. */
  readonly lr: number;
  /** Weight decay of the groups that decay. */
  readonly weightDecay: number;
  /** Momentum of the teacher. */
  readonly momentum: number;
  /** Temperature of the teacher's softmax. */
  readonly teacherTemp: number;
  /** The last layer's parameters are not updated. */
  readonly lastLayerFrozen: boolean;
}

/** The part of a configuration that schedules depend on. */
export type ScheduleConfig =
  & Pick<
    Config,
    | "lr"
    | "lrBatch"
    | "batchSize"
    | "minLr"
    | "epochs"
    | "weightDecay"
    | "weightDecayEnd"
    | "momentumTeacher"
    | "momentumTeacherEnd"
    | "warmupTeacherTemp"
    | "teacherTemp"
    | "warmupTeacherTempEpochs"
    | "freezeLastLayer"
  >
  & { readonly warmupEpochs: number };

/**
 * Every scheduled value of one update.
 *
 * @param step updates already made
 * @param stepsPerEpoch updates of an epoch: images over batch size, rounded down
 * @throws {RangeError} if the run is over, or the warm-up is longer than it
 */
export function scheduledValues(config: ScheduleConfig, stepsPerEpoch: number, step: number): ScheduledValues {
  const total = config.epochs * stepsPerEpoch;
  const epoch = Math.floor(step / stepsPerEpoch);
  return {
    lr: cosineAt(step, {
      base: scaleLr(config.lr, config.batchSize, config.lrBatch),
      final: config.minLr,
      total,
      warmup: config.warmupEpochs * stepsPerEpoch,
    }),
    weightDecay: cosineAt(step, { base: config.weightDecay, final: config.weightDecayEnd, total }),
    momentum: cosineAt(step, { base: config.momentumTeacher, final: config.momentumTeacherEnd, total }),
    teacherTemp: teacherTempAt(epoch, config.warmupTeacherTemp, config.teacherTemp, config.warmupTeacherTempEpochs),
    lastLayerFrozen: epoch < config.freezeLastLayer,
  };
}
