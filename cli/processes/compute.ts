// The process that computes: reads a job from stdin, tells events on stdout, stops when asked or when stdin closes.

import { EXIT_INTERRUPTED, EXIT_TERMINATED, failureOf } from "../terminal/failure.ts";
import type { ComputeContext } from "../jobs/job_context.ts";
import type { ComputeEvent, Job } from "./messages.ts";
import { type Mode, MODE_VARIABLE } from "./mode.ts";
import { leaveToParent } from "./signals.ts";

/** Serves one job. Ends the process. */
export async function serveCompute(): Promise<never> {
  const mode: Mode = Deno.env.get(MODE_VARIABLE) === "turbo" ? "turbo" : "checked";
  const stop = new AbortController();
  let stoppedBy = EXIT_INTERRUPTED;
  const tell = (event: ComputeEvent) => {
    try {
      writeLine(JSON.stringify(event));
    } catch {
      stop.abort(); // nobody listens any more
    }
  };
  for (const name of ["log", "info", "debug"] as const) console[name] = console.error; // stdout is for events
  leaveToParent(); // which hands on the end of the terminal, unless it was started with nohup
  Deno.addSignalListener("SIGINT", () => stop.abort());
  if (Deno.build.os !== "windows") {
    Deno.addSignalListener("SIGTERM", () => {
      stoppedBy = EXIT_TERMINATED;
      stop.abort();
    });
  }
  tell({ type: "ready", mode });
  const job = await readJob(() => stop.abort());
  let code: number;
  try {
    code = await runJob(job, { mode, tell, signal: stop.signal });
  } catch (error) {
    if (!(stop.signal.aborted && error === stop.signal.reason)) {
      const failure = failureOf(error);
      tell({ type: "failure", failure });
      Deno.exit(failure.exit);
    }
    code = EXIT_INTERRUPTED;
  }
  Deno.exit(code === EXIT_INTERRUPTED ? stoppedBy : code);
}

async function runJob(job: Job, context: ComputeContext): Promise<number> {
  switch (job.command) {
    case "train":
      if (job.distributed) return await (await import("../jobs/distributed_job.ts")).runDistributed(job, context);
      return await (await import("../jobs/train_job.ts")).runTrainJob(job, context);
    case "follow":
      return await (await import("../jobs/distributed_job.ts")).runDistributed(job, context);
    case "abandon":
      return await (await import("../jobs/distributed_job.ts")).abandon(job, context);
    case "knn":
      return await (await import("../jobs/knn_job.ts")).runKnnJob(job, context);
    case "evaluation":
      return await (await import("../jobs/evaluation_job.ts")).runEvaluationJob(job, context);
    case "bench":
      return await (await import("../jobs/bench_job.ts")).runBenchJob(job, context);
    case "doctor":
      return await (await import("../jobs/doctor_job.ts")).runDoctorJob(job, context);
  }
}

/** Reads the job's line, then watches stdin: a launcher that is gone leaves nothing running. */
async function readJob(onEnd: () => void): Promise<Job> {
  const reader = Deno.stdin.readable.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (!text.includes("\n")) {
    const { value, done } = await reader.read();
    if (done) Deno.exit(0);
    text += value;
  }
  (async () => {
    while (!(await reader.read()).done);
    onEnd();
  })();
  return JSON.parse(text.slice(0, text.indexOf("\n")));
}

function writeLine(line: string): void {
  const bytes = new TextEncoder().encode(line + "\n");
  for (let done = 0; done < bytes.length;) done += Deno.stdout.writeSync(bytes.subarray(done));
}

if (import.meta.main && !Deno.build.standalone) await serveCompute();
