// The WebGPU backend: compiles programs to WGSL pipelines and runs a step as one submission.
import { WebGpuBackend } from "./backend.ts";
import { type DeviceOptions, openDevice } from "./device.ts";

export { WebGpuBackend } from "./backend.ts";
export { type AdapterSummary, describeAdapters, type DeviceOptions } from "./device.ts";
export { DEFAULT_LIMITS, type LoweringLimits, workspaceBytes } from "./lowering.ts";

/** How to open the backend. */
export interface WebGpuOptions extends DeviceOptions {
  /** Element type of activations and weights; sums are f32 in any case. */
  readonly precision?: "f32";
}

/**
 * Opens a WebGPU device as a backend.
 *
 * @throws {Error} when no adapter can be used, saying which there are and what would help
 */
export async function openWebGpu(options: WebGpuOptions = {}): Promise<WebGpuBackend> {
  return new WebGpuBackend(await openDevice(options));
}
