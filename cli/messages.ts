// What the launcher and its compute process say to each other: one job in, typed events out, a line of JSON each.

import type { Config } from "../dino/config.ts";
import type { PixelLocator } from "../dino/data/dataset.ts";
import type { KnnAccuracy } from "../dino/eval/knn.ts";
import type { KnnRow, TrainEvent } from "../dino/events.ts";
import type { EvaluationOutcome } from "./evaluation_job.ts";
import type { Failure } from "./failure.ts";
import type { Mode } from "./mode.ts";

/** Where to compute. */
export interface DeviceChoice {
  readonly backend: "auto" | "webgpu" | "wasm";
  readonly adapter: string | null;
  readonly threads: number | null;
}

/** Training, with everything but a device. */
export interface TrainJob {
  readonly command: "train";
  readonly config: Config;
  readonly data: PixelLocator;
  readonly val?: PixelLocator;
  readonly out: string;
  readonly resume: boolean;
  readonly reschedule: boolean;
  readonly overwrite: boolean;
}

/** k-NN of given weights. */
export interface KnnJob {
  readonly command: "knn";
  readonly device: DeviceChoice;
  readonly weights: string;
  readonly network: "teacher" | "student";
  readonly data: PixelLocator;
  readonly val?: PixelLocator;
  readonly cropSize: number | null;
  readonly batch: number;
  readonly ks: readonly number[];
  readonly temperature: number;
  readonly seed: number;
  readonly pixels: boolean;
}

/** One of the other evaluations, by the name of its command. */
export interface EvaluationJob {
  readonly command: "evaluation";
  readonly name: string;
  readonly device: DeviceChoice;
  /** null for one that measures a device only. */
  readonly weights: string | null;
  readonly network: "teacher" | "student";
  readonly sources: Readonly<Record<string, PixelLocator>>;
  readonly flags: Readonly<Record<string, unknown>>;
  /** What the command read besides. */
  readonly extra: unknown;
}

/** Measurements. */
export interface BenchJob {
  readonly command: "bench";
  readonly device: DeviceChoice;
  readonly names: readonly string[];
  readonly arch: string;
  readonly patchSize: number;
  readonly batchSize: number;
  readonly globalCropSize: number;
  readonly localCropSize: number;
  readonly localCropsNumber: number;
  readonly outDim: number;
  readonly seconds: number;
  readonly profile: boolean;
}

/** What a compute process is asked to do. */
export type Job = TrainJob | KnnJob | EvaluationJob | BenchJob;

/** One line of a benchmark; values that do not apply are left out. */
export interface BenchRow {
  readonly name: string;
  readonly shape: string;
  readonly backend: string;
  readonly mode: Mode;
  readonly threads: number;
  readonly median_ms: number;
  readonly p10_ms: number;
  readonly p90_ms: number;
  readonly gflops?: number;
  /** gflops over those of the roofline measured in the same run, or bytes a second likewise. */
  readonly roofline_ratio?: number;
  readonly images_per_second?: number;
}

/** Everything a compute process tells. */
export type ComputeEvent =
  | TrainEvent
  | { readonly type: "ready"; readonly mode: Mode }
  | { readonly type: "backend"; readonly name: string; readonly description: string; readonly reason: string }
  | { readonly type: "crops"; readonly png: string; readonly caption: string }
  | {
    readonly type: "knnResult";
    readonly network: string;
    readonly split: string;
    readonly accuracies: readonly KnnAccuracy[];
  }
  | { readonly type: "evaluating"; readonly what: string; readonly done: number; readonly total: number }
  | { readonly type: "evaluationResult"; readonly outcome: EvaluationOutcome }
  | { readonly type: "bench"; readonly row: BenchRow }
  | {
    readonly type: "profile";
    readonly rows: readonly { readonly name: string; readonly milliseconds: number; readonly share: number }[];
  }
  | { readonly type: "result"; readonly knn: readonly KnnRow[] }
  | { readonly type: "failure"; readonly failure: Failure };
