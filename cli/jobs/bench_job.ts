// Benchmarks inside the compute process.

import process from "node:process";
import type { AdapterSummary, AttentionTuning, LoweringLimits, TuningResult } from "../../gpu/mod.ts";
import type { Backend } from "../../models/graph/backend.ts";
import { type BenchCase, type BenchOptions, kernelTime, time } from "../bench/case.ts";
import { measureRoofline, type Roofline } from "../bench/roofline.ts";
import { GPU_SIZES, QUICK_SIZES, USUAL_SIZES } from "../bench/sizes.ts";
import { SUITES } from "../bench/suites.ts";
import { openBackend } from "../device/backend.ts";
import type { ComputeContext } from "./job_context.ts";
import type { BenchJob, BenchRow } from "../processes/messages.ts";

/** What a backend on a graphics card tells besides. */
type OnGpu = Backend & {
  readonly adapter?: AdapterSummary;
  readonly waited?: number;
  readonly tuned?: readonly TuningResult[];
  readonly tunedAttention?: readonly AttentionTuning[];
  readonly tuningSeconds?: number;
  limits?: LoweringLimits;
};

/** In place of a shape: what could not be measured, whose note says why. */
const LEFT_OUT = "left out";

/** For the products and attentions of everything; a run tunes its own few. */
const TUNING_SECONDS = 60;

/** Runs the job; returns the exit status. */
export async function runBenchJob(job: BenchJob, { mode, tell, signal }: ComputeContext): Promise<number> {
  const start = performance.now();
  const timeIsUp = () => job.minutes !== null && performance.now() - start > 60_000 * job.minutes;
  const opened = await openBackend(job.device, { tuningSeconds: job.everything ? TUNING_SECONDS : undefined });
  const backend: OnGpu = opened.backend;
  const { limits } = backend;
  if (limits && job.prologues) backend.limits = { ...limits, prologues: job.prologues };
  try {
    tell({
      type: "backend",
      name: backend.name,
      description: backend.description,
      reason: opened.reason,
      details: opened.details,
    });
    const threads = backend.name === "wasm" ? job.device.threads ?? navigator.hardwareConcurrency : 0;
    const common = { backend: backend.name, mode, threads };
    const sizes = sizesFor(job, backend);
    if (sizes === QUICK_SIZES && !job.quick) {
      tell({ type: "notice", message: "a software adapter: at sizes of --quick, whose figures say nothing of a GPU" });
    }
    const options: BenchOptions = {
      ...sizes,
      ...job.sizes,
      everything: job.everything,
      recompute: job.recompute,
      backend,
    };
    const roofline = await measureRoofline(backend, job.device.adapter ?? undefined, options.copyBytes);
    tell({
      type: "notice",
      message: `roofline: ${round(roofline.gflops)} GFLOP/s, ${round(roofline.gbytes)} GB/s`,
    });
    if (job.everything) {
      for (const row of aboutDevice(backend, roofline)) tell({ type: "bench", row: { ...common, ...row } });
    }
    for (const name of orderOf(job)) {
      const leftOut = (note: string, failed?: boolean) =>
        tell({ type: "bench", row: { ...common, name, shape: LEFT_OUT, note, failed } });
      if (timeIsUp()) {
        leftOut(`${job.minutes} minutes are over`);
        continue;
      }
      try {
        for await (const made of SUITES[name](options)) {
          const row = await measure(made, backend, roofline, job, signal);
          tell({ type: "bench", row: { ...common, ...row } });
          if (job.profile && made.profile) tell({ type: "profile", rows: byName(await made.profile()) });
          if (!timeIsUp()) continue;
          leftOut(`${job.minutes} minutes are over: what follows of it`);
          break;
        }
      } catch (error) {
        if (!job.everything || signal.aborted) throw error;
        leftOut((error as Error).message, true); // too large for this card, say: the others are worth knowing
      }
    }
    if (job.everything) { for (const row of tunedRows(backend)) tell({ type: "bench", row: { ...common, ...row } }); }
    return 0;
  } finally {
    await backend.close();
  }
}

/** The suites in the order they run: an update first among everything, since a tuner's time is for it before all. */
function orderOf({ names, everything }: BenchJob): string[] {
  const suites = names.filter((name) => Object.hasOwn(SUITES, name)); // decode is the launcher's
  return everything ? suites.sort((a, b) => Number(b === "step") - Number(a === "step")) : suites;
}

function sizesFor({ everything, quick }: BenchJob, { adapter }: OnGpu) {
  if (quick || everything && adapter?.fallback) return QUICK_SIZES;
  return everything && adapter ? GPU_SIZES : USUAL_SIZES;
}

type Row = Omit<BenchRow, "backend" | "mode" | "threads">;

async function measure(
  made: BenchCase,
  backend: OnGpu,
  roofline: Roofline,
  { seconds, quick }: BenchJob,
  signal: AbortSignal,
): Promise<Row> {
  const waited = backend.waited === undefined ? undefined : () => backend.waited!;
  const enough = quick ? { times: 1, batch: 0 } : {};
  const { median, p10, p90, host } = await time(made, seconds, { signal, waited, ...enough });
  const kernels = backend.adapter && await kernelTime(made);
  const { flops, bytes, images } = made;
  // What counts is the device's time where it tells, since a short kernel drowns in what surrounds it.
  const busy = kernels ?? median;
  const bounds = { arithmetic: (flops ?? 0) / roofline.gflops / 1e6, memory: (bytes ?? 0) / roofline.gbytes / 1e6 };
  const bound = bounds.arithmetic >= bounds.memory ? "arithmetic" : "memory";
  const { persistent, arena, workspace } = backend.memory;
  return {
    name: made.name,
    shape: made.shape,
    median_ms: round(median),
    p10_ms: round(p10),
    p90_ms: round(p90),
    kernel_ms: kernels && round(kernels),
    host_ms: backend.adapter && made.finish && round(host),
    host_share: backend.adapter && made.finish && round(host / median),
    gflops: flops ? round(flops / busy / 1e6) : undefined,
    gbytes_per_second: bytes && bound === "memory" ? round(bytes / busy / 1e6) : undefined,
    bound: flops || bytes ? bound : undefined,
    roofline_ratio: flops || bytes ? round(bounds[bound] / busy) : undefined,
    images_per_second: images && round(1000 * images / median),
    memory_mb: backend.adapter && round((persistent + arena + workspace) / 1e6),
    peak_rss_mb: process.resourceUsage && Math.round(process.resourceUsage().maxRSS * 1024 / 1e6), // not in Deno 2.7
    note: made.note,
  };
}

function* aboutDevice({ description, adapter }: OnGpu, { gflops, gbytes }: Roofline): Generator<Row> {
  const about = adapter &&
    `${adapter.vendor} ${adapter.architecture}, subgroups of ${adapter.subgroupSize || "any size"}; ` +
      `features ${adapter.features.join(" ")}; limits ${JSON.stringify(adapter.limits)}`;
  yield { name: "device", shape: description, note: about };
  yield { name: "roofline", shape: "multiply-adds on registers", gflops: round(gflops) };
  yield { name: "roofline", shape: "copy", gbytes_per_second: round(gbytes) };
}

function* tunedRows({ tuned = [], tunedAttention = [], tuningSeconds }: OnGpu): Generator<Row> {
  for (const { shape: { m, n, k, transA, transB }, chosen, micros, wrong } of tuned) {
    const times = Object.entries(micros).map(([name, us]) => `${name} ${us.toFixed(0)} µs`).join(", ");
    yield {
      name: "tuned",
      shape: `${m}×${n}×${k} ${transA ? "T" : "N"}${transB ? "T" : "N"}: ${chosen}`,
      note: wrong.length > 0 ? `${times}; wrong here: ${wrong.join(", ")}` : times,
    };
  }
  for (const { shape: { backward, images, heads, tokens }, chosen, micros, wrong } of tunedAttention) {
    const times = Object.entries(micros).map(([name, us]) => `${name} ${us.toFixed(0)} µs`).join(", ");
    yield {
      name: "tuned",
      shape: `attention ${backward ? "backward" : "forward"}, ${images}·${heads} heads of ${tokens} tokens: ${chosen}`,
      note: wrong.length > 0 ? `${times}; wrong here: ${wrong.join(", ")}` : times,
    };
  }
  if (tuningSeconds !== undefined) {
    yield {
      name: "tuned",
      shape: "all of it",
      median_ms: round(1000 * tuningSeconds),
      note: "what a cache knew took no time",
    };
  }
}

const round = (value: number) => Number(value.toPrecision(4));

function byName(rows: readonly { name: string; milliseconds: number }[]) {
  const sums = new Map<string, number>();
  for (const { name, milliseconds } of rows) sums.set(name, (sums.get(name) ?? 0) + milliseconds);
  const total = [...sums.values()].reduce((a, b) => a + b, 0);
  return [...sums].map(([name, milliseconds]) => ({ name, milliseconds, share: milliseconds / total }))
    .sort((a, b) => b.milliseconds - a.milliseconds);
}
