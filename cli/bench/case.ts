// One thing to measure, and how it is timed.

import type { Backend } from "../../models/graph/backend.ts";
import { outputsOf, type Program } from "../../models/graph/program.ts";
import { matmulExtents, type MatmulOp } from "../../models/graph/ops/matmul.ts";
import { headWidth } from "../../models/graph/ops/attention.ts";

/** What is measured with, and at which sizes. */
export interface BenchOptions {
  readonly backend: Backend;
  readonly arch: string;
  readonly patchSize: number;
  readonly batchSize: number;
  readonly globalCropSize: number;
  readonly localCropSize: number;
  readonly localCropsNumber: number;
  readonly outDim: number;
}

/** Something to measure, ready to run. */
export interface BenchCase {
  readonly name: string;
  /** Extents, and what they stand for. */
  readonly shape: string;
  /** Floating-point operations of a run, additions and multiplications apart. */
  readonly flops?: number;
  /** Images of a run. */
  readonly images?: number;
  /** Resolves when the device has finished. */
  run(): Promise<void>;
  /** Time of each operation, where the backend can tell. */
  profile?(): Promise<{ name: string; milliseconds: number }[]>;
  dispose(): void;
}

/** Times of a case in milliseconds. */
export interface Timing {
  readonly median: number;
  readonly p10: number;
  readonly p90: number;
}

/** Runs a case for about so many seconds, after warming up; three times at least. */
export async function time(case_: Pick<BenchCase, "run">, seconds: number, signal?: AbortSignal): Promise<Timing> {
  await case_.run(); // compiles pipelines, touches pages
  const samples: number[] = [];
  const end = performance.now() + 1000 * seconds;
  while (samples.length < 3 || performance.now() < end && samples.length < 1000) {
    signal?.throwIfAborted();
    const start = performance.now();
    await case_.run();
    samples.push(performance.now() - start);
  }
  samples.sort((a, b) => a - b);
  const at = (fraction: number) => samples[Math.round((samples.length - 1) * fraction)];
  return { median: at(0.5), p10: at(0.1), p90: at(0.9) };
}

/** Operations of matrix products and attention, which are all that counts in a transformer. */
export function programFlops(program: Program): number {
  let flops = 0;
  for (const op of program.ops) {
    if (op.kind === "matmul") {
      const { m, n, k } = matmulExtents(op as MatmulOp);
      flops += 2 * m * n * k;
    } else if (op.kind === "attention" || op.kind === "attentionBackward") {
      const { images, heads, queries, tokens } = op.attrs;
      // Forward: q·kᵀ and P·v. Backward: the scores again, dP, dq, dk, dv.
      const products = op.kind === "attention" ? 2 : 5;
      flops += products * 2 * images * heads * queries * tokens * headWidth(op.in.qkv, op.attrs);
    }
  }
  return flops;
}

/** A case that runs one program. */
export async function programCase(
  backend: Backend,
  program: Program,
  about: { name: string; shape: string; images?: number },
): Promise<BenchCase> {
  const executable = await backend.compile(program);
  return {
    ...about,
    flops: programFlops(program),
    run: async () => {
      await executable.run();
      await backend.finish();
    },
    profile: executable.profile && (async () => {
      const micros = await executable.profile!();
      return program.ops.map((op, i) => ({
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
