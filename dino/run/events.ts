// What training tells while it runs: plain values, which the command line draws and the log keeps.

import type { KnnAccuracy } from "../eval/knn/knn.ts";

/** Why training ended. `finished`: the last epoch; `steps`: the updates asked for; the others speak for themselves. */
export type EndReason = "finished" | "steps" | "interrupted" | "non-finite";

/** What is known before the first update. */
export interface StartEvent {
  /** Discriminates the events. */
  readonly type: "start";
  /** Images of the data set. */
  readonly images: number;
  /** Classes among their labels; 0 without labels. */
  readonly classes: number;
  /** Updates of an epoch. */
  readonly stepsPerEpoch: number;
  /** Updates of all epochs, which the schedules span. */
  readonly totalSteps: number;
  /** Updates after which this run stops: fewer than `totalSteps` with --steps. */
  readonly lastStep: number;
  /** Epochs of the whole run. */
  readonly epochs: number;
  /** Images of an update. */
  readonly batchSize: number;
  /** Trainable parameters of backbone and head. */
  readonly parameters: { readonly backbone: number; readonly head: number };
  /** Prototypes, K. */
  readonly outDim: number;
  /** Side of a global crop in pixels. */
  readonly globalCropSize: number;
  /** Side of a local crop in pixels. */
  readonly localCropSize: number;
  /** Name and description of the device. */
  readonly backend: string;
  /** Size of one checkpoint. */
  readonly checkpointBytes: number;
  /** Updates that were already made when a run is resumed; 0 otherwise. */
  readonly resumedAt: number;
}

/**
 * Means over the updates since the last such event: about one a second, for whoever watches.
 *
 * Rows of the log are means over exactly `logEvery` updates instead, so that they do not depend on the clock.
 */
export interface StepEvent {
  /** Discriminates the events. */
  readonly type: "step";
  /** Updates made so far. */
  readonly step: number;
  /** Epoch of the last of them, from 0. */
  readonly epoch: number;
  /** Mean cross-entropy in nats. */
  readonly loss: number;
  /** Entropy of the teacher's softmax in nats; ln K when it is uniform. */
  readonly entropy: number;
  /** Divergence of the student from the teacher, in nats: loss − entropy. */
  readonly kl: number;
  /** Learning rate of the last update. */
  readonly lr: number;
  /** Weight decay of the last update. */
  readonly weightDecay: number;
  /** Teacher's momentum in the last update. */
  readonly momentum: number;
  /** Teacher's temperature in the last update. */
  readonly teacherTemp: number;
  /** Images over seconds since the last such event. */
  readonly imagesPerSecond: number;
  /** Seconds until `lastStep` at the rate of late. */
  readonly secondsLeft: number;
}

/** One row of the log for every `logEvery` updates. */
export interface StepRow {
  /** Updates made so far. */
  readonly step: number;
  /** Epoch of the last of the updates, from 0. */
  readonly epoch: number;
  /** Mean cross-entropy in nats. */
  readonly loss: number;
  /** Mean entropy of the teacher's softmax in nats. */
  readonly entropy: number;
  /** loss − entropy. */
  readonly kl: number;
  /** Of the last of the updates; so are the other scheduled values. */
  readonly lr: number;
  /** Of the last of the updates. */
  readonly weight_decay: number;
  /** The teacher's, of the last of the updates. */
  readonly momentum: number;
  /** Of the last of the updates. */
  readonly teacher_temp: number;
}

/** One row of the log, written at the end of an epoch; the first four keys are the reference's. */
export interface EpochRow {
  /** Mean cross-entropy in nats. */
  readonly train_loss: number;
  /** Mean learning rate. */
  readonly train_lr: number;
  /** Mean weight decay. */
  readonly train_wd: number;
  /** From 0. */
  readonly epoch: number;
  /** Updates made so far. */
  readonly step: number;
  /** Mean entropy of the teacher's softmax in nats. */
  readonly train_entropy: number;
  /** train_loss − train_entropy. */
  readonly train_kl: number;
  /** Mean of the teacher's momentum. */
  readonly train_momentum: number;
  /** The teacher's temperature in this epoch. */
  readonly teacher_temp: number;
  /** Length of the center after the epoch. */
  readonly center_norm: number;
  /** Seconds the epoch took; varies from run to run, as the two below do. */
  readonly seconds: number;
  /** Images over seconds; varies from run to run. */
  readonly images_per_second: number;
  /** Bytes the backend holds; varies from backend to backend. */
  readonly memory_bytes: number;
}

/** k-NN of a frozen network on held-out images. */
export interface KnnRow {
  /** `pixels`: the images themselves, which a network should beat. */
  readonly network: "teacher" | "student" | "pixels";
  /** Epochs of training behind the network; 0: untrained. */
  readonly epochs: number;
  /** Updates made so far. */
  readonly step: number;
  /** One entry for each k. */
  readonly accuracies: readonly KnnAccuracy[];
}

/** Everything that happens during training, in order. */
export type TrainEvent =
  | StartEvent
  | StepEvent
  | { readonly type: "epoch"; readonly row: EpochRow }
  | { readonly type: "knn"; readonly row: KnnRow }
  | {
    readonly type: "checkpoint";
    readonly path: string;
    readonly bytes: number;
    readonly step: number;
    readonly epoch: number;
  }
  | { readonly type: "skipped"; readonly id: string; readonly reason: string }
  | { readonly type: "notice"; readonly message: string }
  | { readonly type: "warning"; readonly message: string }
  | {
    readonly type: "end";
    readonly reason: EndReason;
    readonly step: number;
    readonly epoch: number;
    readonly seconds: number;
    /** For `non-finite`: update, learning rate and last good checkpoint in words. */
    readonly message?: string;
  };

/**
 * One line of `log.jsonl`: `{"kind":"epoch", …EpochRow}`, `{"kind":"step", …StepRow}`, `{"kind":"knn", …KnnRow}`,
 * `{"kind":"skipped", id, reason}`, `{"kind":"warning", step, message}`, `{"kind":"end", reason, step, epoch, seconds}`.
 */
export type LogRow =
  | ({ readonly kind: "epoch" } & EpochRow)
  | ({ readonly kind: "step" } & StepRow)
  | ({ readonly kind: "knn" } & KnnRow)
  | { readonly kind: "skipped"; readonly id: string; readonly reason: string }
  | { readonly kind: "warning"; readonly step: number; readonly message: string }
  | {
    readonly kind: "end";
    readonly reason: EndReason;
    readonly step: number;
    readonly epoch: number;
    readonly seconds: number;
    readonly message?: string;
  };
