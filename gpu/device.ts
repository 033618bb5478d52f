// Opens an adapter with the limits a ViT needs, or says why it cannot.
import type { Precision } from "../models/graph/backend.ts";

/** What an adapter says of itself. */
export interface AdapterSummary {
  /** Position in {@link describeAdapters}, which `--adapter` takes. */
  readonly index: number;
  /** Its name, as the driver gives it. */
  readonly description: string;
  /** Who made it; a number where the driver gives no name. */
  readonly vendor: string;
  /** The family of the hardware; often empty. */
  readonly architecture: string;
  /** A processor pretending to be a graphics card; correct, and slower than the SIMD backend. */
  readonly fallback: boolean;
  /** Invocations that run in lockstep; 0 if unknown or not the same everywhere. */
  readonly subgroupSize: number;
  /** WebGPU's limits by name, as the adapter has them. */
  readonly limits: Readonly<Record<string, number>>;
  /** WebGPU's features that it lists, sorted. */
  readonly features: readonly string[];
}

/** How to choose a device. */
export interface DeviceOptions {
  /** Index in {@link describeAdapters}, or part of the description; default: the fastest real adapter. */
  readonly adapter?: string | number;
  /** Take a software adapter when there is no real one. Naming one by `adapter` allows it too. */
  readonly allowFallback?: boolean;
  /** Where adapters come from; default `navigator.gpu`. */
  readonly gpu?: GPU;
  /** Use subgroups where they are granted and help; default true. Results do not depend on it. */
  readonly subgroups?: boolean;
  /**
   * Element type of stored activations and of the copies of weights that products read; parameters, gradients, statistics and
   * all sums are f32 in any case. `f16` takes about half the memory for activations. Default `f32`.
   */
  readonly precision?: Precision;
}

/** An open device, and the limits it was granted. */
export interface OpenedDevice {
  readonly device: GPUDevice;
  readonly summary: AdapterSummary;
  readonly timestamps: boolean;
  /** Whether kernels may use subgroups. */
  readonly subgroups: boolean;
  /** Of the adapter, if subgroups were granted and all are of one size; else 0. */
  readonly subgroupSize: number;
}

/** Software implementations by the name their drivers give; Deno 2.7 does not set `isFallbackAdapter` for them. */
const SOFTWARE = /llvmpipe|lavapipe|swiftshader|basic render/i;

/** wgpu and its shaders address a buffer by signed 32-bit offsets, so larger requests are refused. */
const LARGEST_BUFFER = 2 ** 31 - 4;

/** Limits asked for above WebGPU's defaults, each up to what the adapter has. */
const WANTED: Readonly<Record<string, number>> = {
  maxBufferSize: LARGEST_BUFFER,
  maxStorageBufferBindingSize: LARGEST_BUFFER,
  maxStorageBuffersPerShaderStage: 16,
  maxComputeWorkgroupStorageSize: 65536,
  maxComputeInvocationsPerWorkgroup: 1024,
  maxComputeWorkgroupSizeX: 1024,
};

/** Every adapter the system offers, best first, each once. */
export async function describeAdapters(gpu: GPU | undefined = systemGpu()): Promise<AdapterSummary[]> {
  return (await listAdapters(gpu)).map(({ summary }) => summary);
}

/**
 * Opens a device.
 *
 * @throws {Error} when no adapter can be used, saying which there are and what would help
 * @throws {RangeError} if the adapter lacks the precision
 */
export async function openDevice(options: DeviceOptions = {}): Promise<OpenedDevice> {
  const { adapter, summary } = await chooseAdapter(options);
  const timestamps = adapter.features.has("timestamp-query");
  const features = timestamps ? ["timestamp-query"] : [];
  if (options.precision === "f16") features.push("shader-f16");
  if (options.subgroups !== false) {
    // Granted though an adapter may not list it.
    const device = await requestDevice(adapter, summary, [...features, "subgroups"]).catch(() => undefined);
    if (device) return { device, summary, timestamps, subgroups: true, subgroupSize: summary.subgroupSize };
    return await openDevice({ ...options, subgroups: false }); // a refused adapter may be used up: ask for it again
  }
  const device = await requestDevice(adapter, summary, features);
  return { device, summary, timestamps, subgroups: false, subgroupSize: 0 };
}

/** The adapter that would be opened. Throws as {@link openDevice} does. */
export async function findAdapter(options: DeviceOptions = {}): Promise<AdapterSummary> {
  return (await chooseAdapter(options)).summary;
}

async function chooseAdapter(options: DeviceOptions): Promise<Found> {
  if (options.gpu) inUse.add(options.gpu);
  const found = choose(await listAdapters(options.gpu ?? systemGpu()), options);
  if (options.precision === "f16" && !found.adapter.features.has("shader-f16")) {
    throw new RangeError(
      `webgpu: adapter "${found.summary.description}" has no 16-bit floats (shader-f16): use precision f32, or update its driver`,
    );
  }
  return found;
}

/** Dawn's add-on crashes if its `GPU` is collected while a device of it lives, or has just ended: they are never collected. */
const inUse = new Set<GPU>();

function systemGpu(): GPU | undefined {
  return (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu;
}

interface Found {
  readonly adapter: GPUAdapter;
  readonly summary: AdapterSummary;
}

async function listAdapters(gpu: GPU | undefined): Promise<Found[]> {
  if (!gpu) return [];
  const requests: GPURequestAdapterOptions[] = [
    { powerPreference: "high-performance" },
    { powerPreference: "low-power" },
    { forceFallbackAdapter: true },
  ];
  const found: Found[] = [];
  for (const request of requests) {
    const adapter = await gpu.requestAdapter(request).catch(() => null);
    if (!adapter) continue;
    const summary = summarize(adapter, found.length);
    const known = found.some(({ summary: s }) =>
      s.description === summary.description && s.vendor === summary.vendor && s.architecture === summary.architecture
    );
    if (!known) found.push({ adapter, summary });
  }
  return found;
}

function summarize(adapter: GPUAdapter, index: number): AdapterSummary {
  const info = adapter.info as GPUAdapterInfo & { isFallbackAdapter?: boolean };
  const description = info.description || info.device || info.architecture || info.vendor || "unnamed adapter";
  const limits: Record<string, number> = {};
  for (const name in adapter.limits) {
    const value = (adapter.limits as unknown as Record<string, unknown>)[name];
    if (typeof value === "number") limits[name] = value;
  }
  const fallback = info.isFallbackAdapter === true ||
    (adapter as { isFallbackAdapter?: boolean }).isFallbackAdapter === true ||
    SOFTWARE.test(`${info.description} ${info.device} ${info.architecture}`);
  const { subgroupMinSize = 0, subgroupMaxSize = 1 } = info as { subgroupMinSize?: number; subgroupMaxSize?: number };
  return {
    index,
    description,
    vendor: String(info.vendor),
    architecture: String(info.architecture),
    fallback,
    subgroupSize: subgroupMinSize === subgroupMaxSize ? subgroupMinSize : 0,
    limits,
    features: [...adapter.features].sort(),
  };
}

function choose(found: readonly Found[], { adapter, allowFallback = false }: DeviceOptions): Found {
  if (found.length === 0) {
    throw new Error(
      "webgpu: no adapter; on Linux install a Vulkan driver and its loader (libvulkan1), or use the SIMD backend",
    );
  }
  const listed = found.map(({ summary: s }) => `${s.index} "${s.description}"`).join(", ");
  if (adapter !== undefined) {
    const wanted = found.find(({ summary: s }) =>
      typeof adapter === "number" || /^\d+$/.test(adapter)
        ? s.index === Number(adapter)
        : s.description.toLowerCase().includes(adapter.toLowerCase())
    );
    if (!wanted) throw new RangeError(`webgpu: no adapter ${JSON.stringify(adapter)}; there are ${listed}`);
    return wanted;
  }
  const real = found.find(({ summary }) => !summary.fallback);
  if (real) return real;
  if (allowFallback) return found[0];
  throw new Error(
    `webgpu: only a software adapter (${listed}), slower than the SIMD backend; use that, or name the adapter to insist`,
  );
}

async function requestDevice(
  adapter: GPUAdapter,
  summary: AdapterSummary,
  requiredFeatures: readonly string[],
): Promise<GPUDevice> {
  const requiredLimits: Record<string, number> = {};
  for (const [name, wanted] of Object.entries(WANTED)) {
    const available = summary.limits[name];
    if (available !== undefined) requiredLimits[name] = Math.min(wanted, available);
  }
  try {
    return await adapter.requestDevice({
      label: "denodino",
      requiredLimits,
      requiredFeatures: requiredFeatures as GPUFeatureName[],
    });
  } catch (cause) {
    throw new Error(
      `webgpu: adapter "${summary.description}" refused a device (${messageOf(cause)}); update its driver`,
      { cause },
    );
  }
}

/** The message of anything thrown. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
