// One thing to measure, and how it is timed.

import type { Backend } from "../../models/graph/backend.ts";
import { inputsOf, outputsOf, type Program } from "../../models/graph/program.ts";
import { conv2dExtents } from "../../models/graph/ops/convolution.ts";
import { matmulExtents, type MatmulOp } from "../../models/graph/ops/matmul.ts";
import { headWidth } from "../../models/graph/ops/attention.ts";
import { byteLength } from "../../models/graph/tensor.ts";
import type { RecomputationName } from "./recomputation.ts";
import type { BenchSizes } from "./sizes.ts";

/** What is measured with, and at which sizes. */
export interface BenchOptions extends BenchSizes {
  readonly backend: Backend;
  /** Also the products of a backward pass, and what else `dino bench all` adds. */
  readonly everything?: boolean;
  /** What an update computes again; default what memory asks for. */
  readonly recompute?: RecomputationName | "auto";
}

/** Something to measure, ready to run. */
export interface BenchCase {
  readonly name: string;
  /** Extents, and what they stand for. */
  readonly shape: string;
  /** Floating-point operations of a run, additions and multiplications apart. */
  readonly flops?: number;
  /** Bytes that a run must read and write at least, each operation by itself. */
  readonly bytes?: number;
  /** Images of a run. */
  readonly images?: number;
  /** What else is to be known of the measurement. */
  readonly note?: string;
  /** One run; resolves when another may follow. */
  run(): Promise<void>;
  /** Resolves when the device has finished every run. Without it `run` does that. */
  finish?(): Promise<void>;
  /** Time of each operation, where the backend can tell. */
  profile?(): Promise<{ name: string; milliseconds: number }[]>;
  dispose(): void;
}

/** Times of a case in milliseconds. */
export interface Timing {
  readonly median: number;
  readonly p10: number;
  readonly p90: number;
  /** Of a run, what JavaScript took: all but waiting for the device. */
  readonly host: number;
}

/** Work that a wait for the device, ten milliseconds on a GPU, should end: the wait then counts for a few per cent. */
const WORTH_WAITING = 250;

/** How a case is timed. */
export interface TimeOptions {
  readonly signal?: AbortSignal;
  /** Milliseconds spent waiting for the device so far; a backend that tells is measured in batches of runs. */
  readonly waited?: () => number;
  /** Measurements at least; default 3. */
  readonly times?: number;
  /** Milliseconds that a batch should take; 0: one run each. */
  readonly batch?: number;
}

/** Runs a case for about so many seconds, after warming up, and at least so many times. */
export async function time(
  { run, finish }: Pick<BenchCase, "run" | "finish">,
  seconds: number,
  { signal, waited, times = 3, batch: worth = WORTH_WAITING }: TimeOptions = {},
): Promise<Timing> {
  const batch = async (runs: number) => {
    const start = performance.now(), before = waited?.() ?? 0;
    for (let i = 0; i < runs; i++) await run();
    await finish?.();
    const elapsed = performance.now() - start;
    return { each: elapsed / runs, host: (elapsed - ((waited?.() ?? 0) - before)) / runs, elapsed };
  };
  await batch(1); // compiles pipelines, touches pages
  let runs = 1;
  while (waited && finish && worth > 0 && runs < 4096 && (await batch(runs)).elapsed < worth) {
    signal?.throwIfAborted();
    runs *= 2;
  }
  const samples: number[] = [], hosts: number[] = [];
  const end = performance.now() + 1000 * seconds;
  while (samples.length < times || performance.now() < end && samples.length < 1000) {
    signal?.throwIfAborted();
    const { each, host } = await batch(runs);
    samples.push(each);
    hosts.push(host);
  }
  for (const values of [samples, hosts]) values.sort((a, b) => a - b);
  const at = (fraction: number) => samples[Math.round((samples.length - 1) * fraction)];
  return { median: at(0.5), p10: at(0.1), p90: at(0.9), host: hosts[Math.round((hosts.length - 1) / 2)] };
}

/** Looks at the device's clock; one may be disturbed. Enough for a slow device that they took this long. */
const PROFILES = 5, LONG_PROFILE = 2000;

/** Milliseconds of a run by the device's own clock, each operation by itself; undefined where there is none. */
export async function kernelTime({ profile }: Pick<BenchCase, "profile">): Promise<number | undefined> {
  if (!profile) return undefined;
  const sums: number[] = [];
  const start = performance.now();
  while (sums.length < PROFILES && (sums.length === 0 || performance.now() - start < LONG_PROFILE)) {
    sums.push((await profile()).reduce((sum, { milliseconds }) => sum + milliseconds, 0));
  }
  return sums.sort((a, b) => a - b)[sums.length >> 1];
}

/** Operations of matrix products and attention, which are all that counts in a transformer. */
export function programFlops(program: Program): number {
  let flops = 0;
  for (const op of program.ops) {
    if (op.kind === "matmul") {
      const { m, n, k } = matmulExtents(op as MatmulOp);
      flops += 2 * m * n * k;
    } else if (op.kind === "conv2d" || op.kind === "conv2dInputGradient" || op.kind === "conv2dWeightGradient") {
      const { images, outH, outW, C, O, kh, kw } = conv2dExtents(
        op.attrs,
        op.kind === "conv2dWeightGradient" ? op.out.dweight : op.in.weight,
      );
      flops += 2 * images * outH * outW * C * O * kh * kw;
    } else if (op.kind === "attention" || op.kind === "attentionBackward") {
      const { images, heads, queries, tokens } = op.attrs;
      // Forward: q·kᵀ and P·v. Backward: the scores again, dP, dq, dk, dv.
      const products = op.kind === "attention" ? 2 : 5;
      flops += products * 2 * images * heads * queries * tokens * headWidth(op.in.qkv, op.attrs);
    }
  }
  return flops;
}

/** Bytes that the operations of a program read and write, each tensor once an operation. */
export function programBytes(program: Program): number {
  let bytes = 0;
  for (const op of program.ops) {
    for (const tensors of [inputsOf(op), outputsOf(op)]) {
      for (const t of new Set(tensors)) bytes += byteLength(t);
    }
  }
  return bytes;
}

/** A case that runs one program. */
export async function programCase(
  backend: Backend,
  program: Program,
  about: Pick<BenchCase, "name" | "shape" | "images" | "note">,
): Promise<BenchCase> {
  const executable = await backend.compile(program);
  return {
    ...about,
    flops: programFlops(program),
    bytes: programBytes(program),
    run: () => executable.run(),
    finish: () => backend.finish(),
    profile: executable.profile && (async () => {
      const micros = await executable.profile!();
      // As the backend runs it, which may be fewer operations.
      return executable.program.ops.map((op, i) => ({
        name: `${op.kind} ${outputsOf(op).map(({ shape }) => `[${shape}]`).join(" ")}`,
        milliseconds: micros[i] / 1000,
      }));
    }),
    dispose: () => executable.dispose(),
  };
}

/** Values that do not repeat in caches and have no denormals: uniform in ±1. */
export function noise(length: number, seed = 1): Float32Array<ArrayBuffer> {
  const values = new Float32Array(length);
  let state = seed >>> 0;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    values[i] = state / 2 ** 31 - 1;
  }
  return values;
}
