// Benchmarks inside the compute process.

import { type BenchOptions, time } from "./bench/case.ts";
import { measureRoofline } from "./bench/roofline.ts";
import { SUITES } from "./bench/suites.ts";
import { openBackend } from "./backend.ts";
import type { ComputeContext } from "./compute.ts";
import type { BenchJob } from "./messages.ts";

/** Runs the job; returns the exit status. */
export async function runBenchJob(job: BenchJob, { mode, tell, signal }: ComputeContext): Promise<number> {
  const { backend, reason } = await openBackend(job.device);
  try {
    tell({ type: "backend", name: backend.name, description: backend.description, reason });
    const threads = backend.name === "wasm" ? job.device.threads ?? navigator.hardwareConcurrency : 0;
    const roofline = await measureRoofline(backend, job.device.adapter ?? undefined);
    tell({ type: "notice", message: `roofline: ${roofline.toFixed(0)} GFLOP/s` });
    const options: BenchOptions = { ...job, backend };
    for (const name of job.names) {
      if (!Object.hasOwn(SUITES, name)) continue; // decode: the launcher's
      for await (const made of SUITES[name](options)) {
        const { median, p10, p90 } = await time(made, job.seconds, signal);
        const gflops = made.flops === undefined ? undefined : made.flops / median / 1e6;
        tell({
          type: "bench",
          row: {
            name: made.name,
            shape: made.shape,
            backend: backend.name,
            mode,
            threads,
            median_ms: round(median),
            p10_ms: round(p10),
            p90_ms: round(p90),
            gflops: gflops && round(gflops),
            roofline_ratio: gflops && round(gflops / roofline),
            images_per_second: made.images && round(1000 * made.images / median),
          },
        });
        if (job.profile && made.profile) tell({ type: "profile", rows: byName(await made.profile()) });
      }
    }
    return 0;
  } finally {
    await backend.close();
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
