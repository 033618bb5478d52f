// Opens the backend that --backend names, or the one that suits the machine, and says why.

import type { Backend } from "../../models/graph/backend.ts";
import type { WebGpu } from "../../gpu/mod.ts";
import { dawnGpu } from "./dawn.ts";
import type { DeviceChoice } from "../processes/messages.ts";
import { MODE_VARIABLE } from "../processes/mode.ts";
import { tuningCache } from "./tuning_cache.ts";

/** A backend, and why it was taken. */
export interface OpenedBackend {
  readonly backend: Backend;
  readonly reason: string;
  /** What the device is, if that was asked for. */
  readonly details?: readonly string[];
}

/**
 * Opens a backend: `auto` takes WebGPU on a real adapter, never on a software one, and else SIMD.
 *
 * @param options `tuningSeconds`: for comparing kernels on a GPU; default what suits one program
 * @throws {Error} if what was asked for by name cannot be had, with what would help
 */
export async function openBackend(
  choice: DeviceChoice,
  options: { readonly tuningSeconds?: number } = {},
): Promise<OpenedBackend> {
  const opened = await choose(choice, options.tuningSeconds);
  if (!choice.verbose) return opened;
  const { details = [] } = opened.backend as Partial<WebGpu>;
  return { ...opened, details: opened.backend.name === "webgpu" ? [...details, await driver()] : details };
}

/** WebGPU does not tell drivers apart; NVIDIA's tells its version on Linux, and Mesa's is in the adapter's name. */
async function driver(): Promise<string> {
  const text = await Deno.readTextFile("/proc/driver/nvidia/version").catch(() => "");
  return `driver: ${/NVRM version: (.+)/.exec(text)?.[1].trim() ?? "not told by WebGPU beyond the adapter's name"}`;
}

/**
 * Refuses a choice that this machine cannot meet, before images are decoded for it.
 *
 * @throws {RangeError} if its parts do not go together, or there is no such adapter
 */
export async function refuseAbsentDevice(choice: DeviceChoice): Promise<void> {
  refuseContradiction(choice);
  const wantsAdapter = choice.backend === "webgpu" || choice.adapter !== null;
  if (!wantsAdapter || choice.backend === "wasm" || choice.webgpu === "dawn") return;
  quietVulkan();
  const { plannedLimits } = await import("../../gpu/mod.ts");
  await plannedLimits({ adapter: choice.adapter ?? undefined, allowFallback: true });
}

/** Vulkan's loader complains where nobody is logged in at a screen; any folder will do. */
export function quietVulkan(): void {
  if (Deno.build.os === "linux" && !Deno.env.get("XDG_RUNTIME_DIR")) Deno.env.set("XDG_RUNTIME_DIR", "/tmp");
}

function refuseContradiction(choice: DeviceChoice): void {
  const { backend, precision } = choice;
  if (backend === "wasm" && choice.webgpu === "dawn") {
    throw new RangeError("--webgpu dawn with --backend wasm: SIMD needs no WebGPU: use one of the two");
  }
  if (backend === "wasm" && precision === "f16") {
    throw new RangeError(
      "--precision f16 with --backend wasm: SIMD stores f32: use --backend webgpu, or --precision f32",
    );
  }
}

async function choose(choice: DeviceChoice, tuningSeconds?: number): Promise<OpenedBackend> {
  const { backend, threads, precision } = choice;
  const adapter = choice.adapter ?? undefined;
  refuseContradiction(choice);
  if (backend === "wasm") return { backend: await simd(threads), reason: "asked for by --backend wasm" };
  const { describeAdapters, openWebGpu } = await import("../../gpu/mod.ts");
  const tuning = { cache: tuningCache(), seconds: tuningSeconds };
  // Who asks for Dawn asks for WebGPU.
  const gpu = choice.webgpu === "dawn" ? await dawnGpu() : undefined;
  if (backend === "webgpu" || adapter !== undefined || gpu) {
    const opened = await openWebGpu({ adapter, allowFallback: true, tuning, precision, gpu });
    const by = adapter !== undefined ? "--adapter" : gpu ? "--webgpu dawn" : "--backend webgpu";
    return { backend: opened, reason: `asked for by ${by}` };
  }
  const adapters = await describeAdapters();
  const real = adapters.filter(({ fallback }) => !fallback);
  let obstacle = adapters.length === 0
    ? "there is no WebGPU adapter"
    : `${adapters[0].description} is a software adapter, slower than SIMD`;
  if (real.length > 0) {
    try {
      return { backend: await openWebGpu({ tuning, precision }), reason: `${real[0].description} is a GPU` };
    } catch (error) {
      obstacle = (error as Error).message;
    }
  }
  if (precision === "f16") {
    throw new RangeError(
      `--precision f16 needs WebGPU, and ${obstacle}: use --backend webgpu to insist, or --precision f32 on SIMD`,
    );
  }
  return { backend: await simd(threads), reason: obstacle };
}

/** The launcher knows how it started this process. */
function knownMode(): "turbo" | "stock" | undefined {
  const mode = Deno.env.get(MODE_VARIABLE);
  return mode === undefined ? undefined : mode === "turbo" ? "turbo" : "stock";
}

async function simd(threads: number | null): Promise<Backend> {
  const { openWasm } = await import("../../wasm/mod.ts");
  return await openWasm({ threads: threads ?? undefined, mode: knownMode() });
}
