// What the launcher and its compute process say to each other: one job in, typed events out, a line of JSON each.

import type { Config } from "../../dino/config.ts";
import type { PixelLocator } from "../../dino/data/dataset.ts";
import type { KnnAccuracy } from "../../dino/eval/knn/knn.ts";
import type { KnnRow, TrainEvent } from "../../dino/run/events.ts";
import type { PrologueUse } from "../../gpu/mod.ts";
import type { RecomputationName } from "../bench/recomputation.ts";
import type { BenchSizes } from "../bench/sizes.ts";
import type { Diagnosis } from "../doctor/diagnosis.ts";
import type { EvaluationOutcome } from "../evaluation/command.ts";
import type { Failure } from "../terminal/failure.ts";
import type { Mode } from "./mode.ts";
import type { World } from "../mpi/world.ts";

/** Where to compute. */
export interface DeviceChoice {
  readonly backend: "auto" | "webgpu" | "wasm";
  readonly adapter: string | null;
  readonly threads: number | null;
  /** Default f32. */
  readonly precision?: "f32" | "f16";
  /** Whose WebGPU; default the runtime's. */
  readonly webgpu?: "deno" | "dawn";
  /** Tell what the device is. */
  readonly verbose?: boolean;
}

/** The device among a command's flags. */
export function deviceOf({ backend, adapter, threads, precision, webgpu, verbose }: DeviceChoice): DeviceChoice {
  return { backend, adapter, threads, precision, webgpu, verbose };
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
  readonly verbose: boolean;
  /** As the first of several ranks, with the flags it was given. */
  readonly distributed?: { readonly world: World; readonly given: Readonly<Record<string, unknown>> };
}

/** Training as one of the other ranks, which do what the first one does. */
export interface FollowJob {
  readonly command: "follow";
  readonly world: World;
  readonly device: DeviceChoice;
  /** Flags it was given, which must be those of the first, but for what each machine has. */
  readonly given: Readonly<Record<string, unknown>>;
}

/** Tells the other ranks that the first one cannot begin. */
export interface AbandonJob {
  readonly command: "abandon";
  readonly world: World;
  readonly device: DeviceChoice;
  readonly reason: string;
}

/** k-NN of given weights. */
export interface KnnJob {
  readonly command: "knn";
  readonly device: DeviceChoice;
  readonly weights: string;
  readonly network: "teacher" | "student";
  /** Where the weights do not say. */
  readonly numHeads: number | null;
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
  /** Where the weights do not say. */
  readonly numHeads: number | null;
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
  /** Sizes that were asked for; the others are usual for the device. */
  readonly sizes: Partial<BenchSizes>;
  /** Everything a graphics card is judged by, at the sizes of the paper. */
  readonly everything: boolean;
  /** Tiny sizes, to try everything out. */
  readonly quick: boolean;
  readonly seconds: number;
  /** When to measure nothing more; null: when all is done. */
  readonly minutes: number | null;
  /** Which operations products on WebGPU compute as they read their operands; undefined: what pays there. */
  readonly prologues?: PrologueUse;
  /** What an update computes again; auto: what memory asks for. */
  readonly recompute: RecomputationName | "auto";
  readonly profile: boolean;
}

/** Checks of the kernels. */
export interface DoctorJob {
  readonly command: "doctor";
  readonly device: DeviceChoice;
  /** Also those that a software adapter never chooses. */
  readonly variants: boolean;
}

/** What a compute process is asked to do. */
export type Job = TrainJob | FollowJob | AbandonJob | KnnJob | EvaluationJob | BenchJob | DoctorJob;

/** One line of a benchmark; values that do not apply are left out. */
export interface BenchRow {
  readonly name: string;
  readonly shape: string;
  readonly backend: string;
  readonly mode: Mode;
  readonly threads: number;
  readonly median_ms?: number;
  readonly p10_ms?: number;
  readonly p90_ms?: number;
  /** Of a run, by the device's own clock, where it has one: without what lies between operations. */
  readonly kernel_ms?: number;
  /** Of a run on a GPU: what JavaScript took, and that over the run's time. */
  readonly host_ms?: number;
  readonly host_share?: number;
  readonly gflops?: number;
  /** Least bytes that must be read and written, a second. */
  readonly gbytes_per_second?: number;
  /** What bounds it: the time that takes at the roofline measured in the same run, over the time it took. */
  readonly bound?: "arithmetic" | "memory";
  readonly roofline_ratio?: number;
  readonly images_per_second?: number;
  /** On the device, everything that was alive. */
  readonly memory_mb?: number;
  readonly note?: string;
  /** It could not be measured, for the reason in the note. */
  readonly failed?: boolean;
  /** Most memory the computing process ever held, in 10⁶ bytes. */
  readonly peak_rss_mb?: number;
}

/** Everything a compute process tells. */
export type ComputeEvent =
  | TrainEvent
  | { readonly type: "ready"; readonly mode: Mode }
  | {
    readonly type: "backend";
    readonly name: string;
    readonly description: string;
    readonly reason: string;
    readonly details?: readonly string[];
  }
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
    readonly type: "diagnosis";
    readonly name: string;
    readonly description: string;
    readonly reason: string;
    readonly details?: readonly string[];
  } & Diagnosis
  | {
    readonly type: "profile";
    readonly rows: readonly { readonly name: string; readonly milliseconds: number; readonly share: number }[];
  }
  | { readonly type: "result"; readonly knn: readonly KnnRow[] }
  | { readonly type: "failure"; readonly failure: Failure };
