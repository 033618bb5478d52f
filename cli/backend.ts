// Opens the backend that --backend names, or the one that suits the machine, and says why.

import type { Backend } from "../models/graph/backend.ts";
import type { DeviceChoice } from "./messages.ts";
import { MODE_VARIABLE } from "./mode.ts";
import { tuningCache } from "./tuning_cache.ts";

/** A backend, and why it was taken. */
export interface OpenedBackend {
  readonly backend: Backend;
  readonly reason: string;
}

/**
 * Opens a backend: `auto` takes WebGPU on a real adapter, never on a software one, and else SIMD.
 *
 * @throws {Error} if what was asked for by name cannot be had, with what would help
 */
export async function openBackend(choice: DeviceChoice): Promise<OpenedBackend> {
  const { backend, threads, precision } = choice;
  const adapter = choice.adapter ?? undefined;
  if (backend === "wasm" && precision === "f16") {
    throw new RangeError(
      "--precision f16 with --backend wasm: SIMD stores f32: use --backend webgpu, or --precision f32",
    );
  }
  if (backend === "wasm") return { backend: await simd(threads), reason: "asked for by --backend wasm" };
  const { describeAdapters, openWebGpu } = await import("../gpu/mod.ts");
  const tuning = { cache: tuningCache() };
  if (backend === "webgpu" || adapter !== undefined) {
    const opened = await openWebGpu({ adapter, allowFallback: true, tuning, precision });
    return { backend: opened, reason: `asked for by ${adapter === undefined ? "--backend webgpu" : "--adapter"}` };
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
  const { openWasm } = await import("../wasm/mod.ts");
  return await openWasm({ threads: threads ?? undefined, mode: knownMode() });
}
