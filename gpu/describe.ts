// What there is to know of an open device, in lines.
import type { AdapterSummary } from "./device.ts";

/** Limits that decide what fits and which kernels run. */
const TOLD = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupsPerDimension",
  "minStorageBufferOffsetAlignment",
];

/** Adapter, features and limits, the granted beside those the adapter has. */
export function describeDevice(
  { index, description, vendor, architecture, fallback, subgroupSize, features, limits }: AdapterSummary,
  device: GPUDevice,
  subgroups: boolean,
): string[] {
  const granted = device.limits as unknown as Record<string, number>;
  const limit = (name: string) =>
    `${name} ${granted[name]}${limits[name] === granted[name] ? "" : ` (of ${limits[name]})`}`;
  return [
    `adapter ${index}: ${description}, vendor ${vendor}, architecture ${architecture || "not told"}` +
    `, ${fallback ? "software" : "hardware"}`,
    `subgroups: ${subgroupSize > 0 ? `of ${subgroupSize}` : "of several sizes or none"}, ` +
    (device.features.has("subgroups" as GPUFeatureName)
      ? subgroups ? "granted, used for sums over rows" : "granted"
      : "not granted"),
    `features of the adapter: ${features.join(" ") || "none"}`,
    `features asked for: ${[...device.features].sort().join(" ") || "none"}`,
    `limits: ${TOLD.map(limit).join(", ")}`,
  ];
}
