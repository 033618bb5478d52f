// The WebGPU backend: compiles programs to WGSL pipelines and runs a step as one submission.
import { WebGpuBackend } from "./backend.ts";
import { Tuner, type TuningOptions } from "./autotune.ts";
import { type DeviceOptions, findAdapter, openDevice } from "./device.ts";
import { type LoweringLimits, loweringLimits } from "./lowering.ts";

export { WebGpuBackend } from "./backend.ts";
export type { TuningCache, TuningOptions, TuningResult } from "./autotune.ts";
export { type AdapterSummary, describeAdapters, type DeviceOptions } from "./device.ts";
export { DEFAULT_LIMITS, type LoweringLimits, workspaceBytes } from "./lowering.ts";

/** How to open the backend. */
export interface WebGpuOptions extends DeviceOptions {
  /** Element type of activations and weights; sums are f32 in any case. */
  readonly precision?: "f32";
  /**
   * How to find the fastest kernels for this adapter when a program is compiled; `false` keeps to rules of thumb.
   * A software adapter is never tuned. Results do not depend on it, bit for bit.
   */
  readonly tuning?: TuningOptions | false;
}

/**
 * Opens a WebGPU device as a backend.
 *
 * @throws {Error} when no adapter can be used, saying which there are and what would help
 */
export async function openWebGpu(options: WebGpuOptions = {}): Promise<WebGpuBackend> {
  const opened = await openDevice(options);
  const backend = new WebGpuBackend(opened, { strict: options.gpu !== undefined && options.gpu !== navigator.gpu });
  if (options.tuning !== false && !opened.summary.fallback) backend.tuner = new Tuner(backend, options.tuning);
  return backend;
}

/** What {@link workspaceBytes} should plan for: the limits of the adapter that {@link openWebGpu} would take, without opening it. */
export async function plannedLimits(options: DeviceOptions = {}): Promise<LoweringLimits> {
  const summary = await findAdapter(options);
  return loweringLimits(summary, summary.subgroupSize);
}
