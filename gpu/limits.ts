// What kernels are written and chosen for: the limits and habits of an adapter, known before it is opened.
import type { AdapterSummary } from "./device.ts";
import { LANE_COUNTS } from "./kernels/lane_product.ts";
import type { PrologueUse } from "./prologues.ts";

/** What lowering must know of the device. */
export interface LoweringLimits {
  /** Largest storage binding in bytes. */
  readonly bindingBytes: number;
  /** Memory of a workgroup in bytes. */
  readonly workgroupBytes: number;
  /** A software adapter: short kernels, which build fast. */
  readonly fallback: boolean;
  /** Whether sums and maxima over rows meet in subgroups, which changes no bit. */
  readonly subgroups: boolean;
  /** On a software adapter with subgroups of a size the lane kernels are written for, that size; else 0. */
  readonly lanes: number;
  /** Which operations products do as they read their operands. */
  readonly prologues: PrologueUse;
}

/** WebGPU's default limits, for planning without a device. */
export const DEFAULT_LIMITS: LoweringLimits = {
  bindingBytes: 2 ** 31 - 4,
  workgroupBytes: 32768,
  fallback: false,
  subgroups: false,
  lanes: 0,
  prologues: "saving",
};

/** What to plan for on an adapter, whether or not it has been opened. */
export function loweringLimits(
  { fallback, limits }: AdapterSummary,
  subgroupSize: number,
  granted: { maxStorageBufferBindingSize: number; maxComputeWorkgroupStorageSize: number } = {
    maxStorageBufferBindingSize: Math.min(limits.maxStorageBufferBindingSize, DEFAULT_LIMITS.bindingBytes),
    maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
  },
): LoweringLimits {
  return {
    bindingBytes: granted.maxStorageBufferBindingSize,
    workgroupBytes: granted.maxComputeWorkgroupStorageSize,
    fallback,
    subgroups: false, // until the device has shown that its subgroups lie in order
    lanes: fallback && LANE_COUNTS.includes(subgroupSize) ? subgroupSize : 0,
    // Instructions are what a software adapter is short of.
    prologues: fallback ? "none" : "saving",
  };
}
