// --dry-run: what a run would do and take, without a device and without writing anything.

import { checkpointSize } from "../dino/run/checkpoint.ts";
import { checkpointTensors } from "../dino/run/checkpoint_tensors.ts";
import type { Config } from "../dino/config.ts";
import type { PixelSource } from "../dino/data/dataset.ts";
import { freeBytes } from "../dino/data/disk_space.ts";
import { fitRecomputation, programsOf, type Room } from "../dino/memory/fit.ts";
import { NOTHING_FITS, whatFits } from "../dino/memory/advice.ts";
import { recomputations } from "../dino/memory/recomputations.ts";
import {
  type ArenaBytes,
  estimateMemory,
  largestBatch,
  type MemoryEstimate,
  planRun,
  programBytes,
  type RunPlan,
  setUpStep,
} from "../dino/run/plan.ts";
import { type Share, WHOLE } from "../dino/ranks/ranks.ts";
import type { Program } from "../models/graph/program.ts";
import { scheduledValues } from "../dino/schedule.ts";
import {
  arenaBytes,
  describeAdapters,
  type LoweringLimits,
  plannedLimits,
  workspaceBytes as gpuWorkspace,
} from "../gpu/mod.ts";
import { workspaceBytes as simdWorkspace } from "../wasm/mod.ts";
import { quietVulkan } from "./device/backend.ts";
import { openData } from "./processes/open_data.ts";
import type { Progress } from "./terminal/progress.ts";
import { untilStopped } from "./processes/signals.ts";
import { formatBytes } from "./terminal/std.ts";

/** Images of an encoded data set that are looked at: enough for their usual size. */
const LOOKED_AT = 64;
/** What a Deno process with the kernels takes before any tensor; measured on Linux x86-64. */
const PROCESS_BYTES = 105e6;
/** Drawing weights and saving them takes copies outside the device: so much for every byte of parameters, measured. */
const HOST_COPIES = 1.9;
/** Wasm addresses memory by 32 bits. */
const SIMD_LIMIT = 2 ** 32;
/** WebGPU does not tell how much memory an adapter has. */
const USUAL_GPUS = [4, 8, 16, 24, 48, 80];

/** Prints the plan of a run; of one of several ranks, what each of them takes. */
export async function dryRun(config: Config, progress: Progress, share: Share = WHOLE): Promise<number> {
  const folder = await Deno.makeTempDir({ prefix: "denodino-plan-" });
  try {
    const looked = await untilStopped((signal) => lookAtData(config, folder, progress, signal));
    if (typeof looked === "number") return looked;
    const { data, decoded } = looked.done;
    const wanted = planRun(config, data, share);
    const backend = await likelyBackend(config);
    const threads = config.threads ?? navigator.hardwareConcurrency;
    const { precision } = config;
    if (backend === "wasm" && precision === "f16") {
      throw new RangeError("--precision f16 on SIMD, which stores f32: use --backend webgpu, or --precision f32");
    }
    const limits = backend === "webgpu" ? await adapterLimits(config) : {};
    const arena = backend === "webgpu" ? keptAs(precision, limits) : undefined;
    const scratch = (program: Program) =>
      backend === "wasm" ? simdWorkspace(program, { threads }) : gpuWorkspace(program, limits, precision);
    const host = hostBytes(estimateMemory(wanted, arena));
    const room = backend === "wasm" ? simdRoom(host, scratch) : undefined;
    const plan = room ? await fitRecomputation(wanted, room) : wanted;
    const estimate = estimateMemory(plan, arena);
    const workspace = Math.max(...programsOf(plan).map(scratch));
    const total = estimate.total + workspace;
    const disk = await estimateDisk(plan, decoded ? data : undefined);
    if (progress.options.json) {
      const { config, stepsPerEpoch, totalSteps } = plan;
      const memory = { ...estimate, workspace, total, process: total + host };
      const { recompute = {} } = plan;
      console.log(
        JSON.stringify({ type: "plan", backend, config, stepsPerEpoch, totalSteps, memory, disk, recompute }),
      );
    } else {
      for (const line of describePlan(plan)) progress.result(line);
      for (const line of describeMemory(estimate, workspace, backend)) progress.result(line);
      for (const line of describeRoom(plan, workspace / plan.config.batchSize, room)) progress.result(line);
      for (const line of describeDisk(disk, plan.config)) progress.result(line);
      if (disk.free !== null && disk.total > disk.free) {
        progress.warn(
          "the disk is too small for this run: use a larger --saveckp-freq, --keep, a smaller --cache-size or another disk",
        );
      }
      if (room && !await room.holds(programsOf(plan))) {
        const fits = await whatFits(plan, room);
        progress.warn(
          `this run does not fit; ${fits.length > 0 ? `what does: ${fits.join(", or ")}` : NOTHING_FITS}`,
        );
      }
    }
    data.close();
    return 0;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** The data set; of one that must be decoded, a few images that stand for the others. */
async function lookAtData(
  config: Config,
  cacheDir: string,
  progress: Progress,
  signal: AbortSignal,
): Promise<{ data: PixelSource; decoded: boolean }> {
  const crop = config.globalCropSize ?? 224;
  const enough = new AbortController();
  let images = 0;
  const open = async (limit: number | null, look: boolean) => {
    const choice = { ...config, limit, cacheDir, crop, val: null };
    const { data, val } = await openData(choice, (event) => {
      if (event.type !== "found" || !look) return;
      progress.warnOfForeign(event);
      if (event.kind === "raw") return;
      images = event.images;
      enough.abort();
      enough.signal.throwIfAborted();
    }, signal);
    val?.close();
    return data;
  };
  try {
    return { data: await open(config.limit, true), decoded: false };
  } catch (error) {
    if (error !== enough.signal.reason) throw error;
  }
  return { data: standIn(await open(Math.min(LOOKED_AT, images), false), images), decoded: true };
}

/** A source that is said to have more images, all of the sizes of those it has. */
function standIn(some: PixelSource, length: number): PixelSource {
  return { ...some, length, size: (i) => some.size(i % some.length), close() {} };
}

/** The arena of a program whose activations a GPU, or the adapter of these limits, keeps as that. */
function keptAs(precision: Config["precision"], limits: Partial<LoweringLimits> = {}): ArenaBytes {
  return (program) => arenaBytes(program, precision, limits);
}

/** The limits of the adapter that the run would take; without any adapter the plan is for a common one. */
async function adapterLimits({ adapter, precision }: Config) {
  if ((await describeAdapters()).length === 0) return {};
  return await plannedLimits({ adapter: adapter ?? undefined, allowFallback: true, precision });
}

async function likelyBackend({ backend, adapter }: Config): Promise<"wasm" | "webgpu"> {
  if (backend !== "auto") return backend;
  if (adapter !== null) return "webgpu";
  quietVulkan();
  return (await describeAdapters()).some(({ fallback }) => !fallback) ? "webgpu" : "wasm";
}

function describePlan({ config, facts, stepsPerEpoch, totalSteps, lastStep, notices }: RunPlan): string[] {
  const at = (step: number) => {
    const { lr, weightDecay, momentum, teacherTemp } = scheduledValues(config, stepsPerEpoch, step);
    return `  update ${String(step).padStart(7)}: lr ${lr.toExponential(3)}, weight decay ${weightDecay.toFixed(4)}, ` +
      `teacher momentum ${momentum.toFixed(5)}, teacher temperature ${teacherTemp.toFixed(4)}`;
  };
  const shown = [0, config.warmupEpochs * stepsPerEpoch, Math.floor(totalSteps / 2), totalSteps - 1];
  return [
    `${facts.images} images, ${config.epochs} epochs of ${stepsPerEpoch} updates of ${config.batchSize} images: ` +
    `${totalSteps} updates${lastStep < totalSteps ? `, of which ${lastStep} are made` : ""}`,
    ...notices,
    "schedules:",
    ...[...new Set(shown)].filter((step) => step < totalSteps).sort((a, b) => a - b).map(at),
  ];
}

/** What the computing process takes besides the device's memory, which on SIMD is its own too. */
function hostBytes({ parameters }: MemoryEstimate): number {
  return PROCESS_BYTES + HOST_COPIES * parameters;
}

function describeMemory(estimate: MemoryEstimate, workspace: number, backend: string): string[] {
  const row = (name: string, bytes: number) => `  ${name.padEnd(34)}${formatBytes(bytes).padStart(10)}`;
  const total = estimate.total + workspace;
  return [
    `memory on ${backend}:`,
    row("parameters (student and teacher)", estimate.parameters),
    row("gradients", estimate.gradients),
    row("optimizer state", estimate.optimizer),
    row("activations", estimate.activations),
    row("pixels, tables, the rest", estimate.other),
    row("scratch of the kernels", workspace),
    row("together", total),
    ...backend === "wasm" ? [row("the process, with Deno itself", total + hostBytes(estimate))] : [],
  ];
}

/** Bytes a run leaves on the disk. */
interface DiskEstimate {
  readonly checkpoint: number;
  /** Checkpoints that stay, besides the latest. */
  readonly kept: number;
  /** Decoded images; 0 where they are read as they are. */
  readonly cache: number;
  /** With the next checkpoint, which is written beside the latest. */
  readonly total: number;
  /** Of the run folder's disk; null where the system does not tell. */
  readonly free: number | null;
}

async function estimateDisk(plan: RunPlan, decoded?: PixelSource): Promise<DiskEstimate> {
  const { epochs, saveckpFreq, keep, out, cacheDir } = plan.config;
  const checkpoint = checkpointSize(checkpointTensors(setUpStep(plan).state));
  const kept = Math.min(keep ?? Infinity, Math.floor(epochs / saveckpFreq));
  let cache = 0;
  for (let i = 0; decoded && i < decoded.length; i++) cache += 3 * decoded.size(i).height * decoded.size(i).width;
  const elsewhere = cacheDir !== null; // on whatever disk that is
  const total = (kept + 2) * checkpoint + (elsewhere ? 0 : cache);
  return { checkpoint, kept, cache, total, free: await freeBytes(out ?? "runs") ?? null };
}

function describeDisk({ checkpoint, kept, cache, total, free }: DiskEstimate, { cacheDir }: Config): string[] {
  const row = (name: string, bytes: number) => `  ${name.padEnd(34)}${formatBytes(bytes).padStart(10)}`;
  return [
    "disk:",
    row("the latest checkpoint, and its next", 2 * checkpoint),
    ...kept > 0 ? [row(`${kept} that stay${kept === 1 ? "s" : ""}`, kept * checkpoint)] : [],
    ...cache > 0 ? [row(cacheDir === null ? "decoded images" : "decoded images, in --cache-dir", cache)] : [],
    row(cacheDir === null || cache === 0 ? "together" : "together in the run folder", total),
    ...free === null ? [] : [row("free", free)],
  ];
}

/** What the CPU backend would have room for on this machine. */
interface SimdRoom extends Required<Room> {
  readonly bytes: number;
}

function simdRoom(host: number, scratch: (program: Program) => number): SimdRoom {
  const bytes = Math.min(Deno.systemMemoryInfo().available - host, SIMD_LIMIT);
  return {
    name: "wasm",
    bytes,
    holds: (programs) => Promise.resolve(programBytes(programs) + Math.max(...programs.map(scratch)) <= bytes),
  };
}

function describeRoom(plan: RunPlan, workspacePerImage: number, room?: SimdRoom): string[] {
  const { precision, recompute } = plan.config;
  const kept = { ...plan, recompute: undefined };
  const fits = (plan: RunPlan, bytes: number, arena?: ArenaBytes) => {
    // Scratch grows with the batch at most, so leaving room in proportion is safe.
    let batch = largestBatch(plan, bytes, arena);
    while (batch > 1 && largestBatch(plan, bytes - batch * workspacePerImage, arena) < batch) batch /= 2;
    return batch;
  };
  /** The largest batch, and with all that may be computed again a larger one. */
  const batches = (bytes: number, arena?: ArenaBytes) => {
    const batch = fits(kept, bytes, arena);
    const more = recompute === "auto"
      ? fits({ ...plan, recompute: recomputations(plan.config).at(-1) }, bytes, arena)
      : 0;
    return more > batch ? `${batch}, or ${more} with activations computed again` : `${batch}`;
  };
  if (!room) {
    return USUAL_GPUS.map((gigabytes) => {
      const bytes = gigabytes * 1e9;
      const halved = precision === "f32" ? fits(kept, bytes, keptAs("f16")) : 0;
      const more = halved > fits(kept, bytes, keptAs(precision)) ? `; ${halved} with --precision f16` : "";
      return `in ${gigabytes} GB: --batch-size ${batches(bytes, keptAs(precision))}${more}`;
    });
  }
  const why = room.bytes === SIMD_LIMIT ? "what WebAssembly can address" : "what is free on this machine";
  const most = batches(room.bytes);
  return [`in ${formatBytes(room.bytes)}, ${why}: ${most === "0" ? "no batch" : `--batch-size up to ${most}`}`];
}
