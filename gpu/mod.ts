// The WebGPU backend: compiles programs to WGSL pipelines and runs a step as one submission.
import type { Backend } from "../models/graph/backend.ts";
import { WebGpuBackend } from "./backend.ts";
import { Tuner, type TuningOptions } from "./autotune.ts";
import { type AdapterSummary, type DeviceOptions, findAdapter, openDevice } from "./device.ts";
import type { MatmulShape } from "./kernels/matmul_tiles.ts";
import { type LoweringLimits, loweringLimits } from "./limits.ts";
import type { PrologueUse } from "./prologues.ts";
import type { AttentionShape } from "./attention_choice.ts";
import type { AttentionTuning } from "./tuning/attention.ts";
import type { TuningResult } from "./tuning/matmul.ts";
import { subgroupsInOrder } from "./subgroups.ts";

export type { TuningCache, TuningOptions } from "./autotune.ts";
export type { TuningResult } from "./tuning/matmul.ts";
export type { AttentionShape } from "./attention_choice.ts";
export type { AttentionTuning } from "./tuning/attention.ts";
export type { MatmulShape, TileName } from "./kernels/matmul_tiles.ts";
export { movePrologues, PROLOGUE_USES, type PrologueUse } from "./prologues.ts";
export { type AdapterSummary, describeAdapters, type DeviceOptions } from "./device.ts";
export { DEFAULT_LIMITS, type LoweringLimits } from "./limits.ts";
export { arenaBytes, workspaceBytes } from "./lower.ts";

/** How to open the backend. */
export interface WebGpuOptions extends DeviceOptions {
  /** Take no more of the device's memory than so many bytes; default what it gives. */
  readonly maximumBytes?: number;
  /**
   * Which layer norms, GELUs and row factors products compute as they read their operands, so that the results are never stored:
   * `saving`, the default, where that moves fewer bytes; `all` that can be; `none`, the default on a software adapter.
   */
  readonly prologues?: PrologueUse;
  /**
   * How to find the fastest kernels for this adapter when a program is compiled; `false` keeps to rules of thumb.
   * A software adapter is never tuned. Results do not depend on it, bit for bit.
   */
  readonly tuning?: TuningOptions | false;
}

/** An open WebGPU device. */
export interface WebGpu extends Backend {
  /** What it runs on. */
  readonly adapter: AdapterSummary;
  /** Adapter, features and limits, in lines. */
  readonly details: readonly string[];
  /** What kernels are chosen for; a doctor may narrow it before compiling. */
  limits: LoweringLimits;
  /** What the tuner found so far; empty on a software adapter. */
  readonly tuned: readonly TuningResult[];
  /** What the tuner found of attention. */
  readonly tunedAttention: readonly AttentionTuning[];
  /** Times and checks every kernel that an attention can take here. Throws {Error} if none computes rightly. */
  compareAttention(shape: AttentionShape): Promise<AttentionTuning>;
  /** Seconds the tuner took for that. */
  readonly tuningSeconds: number;
  /** Milliseconds that runs and `finish` have waited for the device. */
  readonly waited: number;
  /** Times and checks every tile that fits the adapter on one product. Throws {Error} if none computes rightly. */
  compareTiles(shape: MatmulShape): Promise<TuningResult>;
}

/**
 * Opens a WebGPU device as a backend.
 *
 * @throws {Error} when no adapter can be used, saying which there are and what would help
 */
export async function openWebGpu(options: WebGpuOptions = {}): Promise<WebGpu> {
  // Kernels use subgroups without asking for the extension by name, which Deno's compiler does not know and others insist on.
  const foreign = isForeign(options.gpu);
  const opened = await openDevice(foreign ? { ...options, subgroups: false } : options);
  const backend = new WebGpuBackend(opened, {
    strict: foreign,
    precision: options.precision,
    maximumBytes: options.maximumBytes,
    prologues: options.prologues,
  });
  // A software adapter gives a row to one thread, which meets nobody.
  if (opened.subgroups && !opened.summary.fallback && await subgroupsInOrder(opened.device)) {
    backend.limits = { ...backend.limits, subgroups: true };
  }
  if (options.tuning !== false && !opened.summary.fallback) backend.tuner = new Tuner(backend, options.tuning);
  return backend;
}

/**
 * What {@link workspaceBytes} should plan for: the limits of the adapter that {@link openWebGpu} would take, without opening it.
 *
 * @throws as {@link openWebGpu} does where there is no such adapter, or it lacks the precision
 */
export async function plannedLimits(options: DeviceOptions = {}): Promise<LoweringLimits> {
  const summary = await findAdapter(options);
  return loweringLimits(summary, options.subgroups === false || isForeign(options.gpu) ? 0 : summary.subgroupSize);
}

/** Whether this is another implementation than the runtime's own. */
function isForeign(gpu: GPU | undefined): boolean {
  return gpu !== undefined && gpu !== navigator.gpu;
}
