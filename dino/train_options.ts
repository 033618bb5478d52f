// What training is given besides hyperparameters, and how it ends.

import type { Backend } from "../models/graph/backend.ts";
import type { Communicator } from "../models/graph/communicator.ts";
import type { PixelSource } from "./data/dataset.ts";
import type { EndReason, KnnRow, TrainEvent } from "./run/events.ts";
import type { DinoState } from "./state.ts";

/** What training is given besides hyperparameters. */
export interface TrainOptions {
  /** Computes; opened and closed by the caller. */
  readonly backend: Backend;
  /** Images to train on. */
  readonly data: PixelSource;
  /**
   * Connects this training to others that make every update together with it, each with a backend of its own: the result is that of
   * one training with the whole batch, but for rounding. All are given the same configuration, images and kind of backend. Only the
   * first writes, evaluates and reads checkpoints. Closed by the caller.
   */
  readonly communicator?: Communicator;
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
  /** Aborting it saves a checkpoint after the update at hand and ends training; that of any rank ends all of them. */
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
  /** Both networks, on the device until `state.dispose(backend)` frees them. */
  readonly state: DinoState;
  /** For `non-finite`: what happened, and the last good checkpoint. */
  readonly message?: string;
}
