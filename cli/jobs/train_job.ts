// Training inside the compute process: opens a backend and the pixels, trains, tells.

import { reopenPixels } from "../../dino/data/open.ts";
import { planRun } from "../../dino/run/plan.ts";
import { train } from "../../dino/train.ts";
import type { Communicator } from "../../models/graph/communicator.ts";
import { openBackend } from "../device/backend.ts";
import type { ComputeContext } from "./job_context.ts";
import { EXIT_FAILURE, EXIT_INTERRUPTED } from "../terminal/failure.ts";
import type { TrainJob } from "../processes/messages.ts";
import { contactSheet } from "../report/contact_sheet.ts";

/** Runs the job, alone or as one of several ranks; returns the exit status. */
export async function runTrainJob(
  job: TrainJob,
  { tell, signal }: ComputeContext,
  communicator?: Communicator,
): Promise<number> {
  const { config } = job;
  const data = await reopenPixels(job.data);
  const val = job.val && await reopenPixels(job.val);
  const plan = planRun(config, data, communicator); // impossible configurations are refused before a device is opened
  const { backend, reason, details } = await openBackend({ ...config, verbose: job.verbose });
  try {
    tell({ type: "backend", name: backend.name, description: backend.description, reason, details });
    if (!communicator || communicator.rank === 0) {
      const { png, caption } = await contactSheet(plan.config, data, backend);
      tell({ type: "crops", png: png.toBase64(), caption });
    }
    const result = await train(config, {
      backend,
      communicator,
      data,
      val,
      out: job.out,
      resume: job.resume,
      reschedule: job.reschedule,
      overwrite: job.overwrite,
      signal,
      onEvent: tell,
    });
    tell({ type: "result", knn: result.knn });
    if (result.reason === "interrupted") return EXIT_INTERRUPTED;
    return result.reason === "non-finite" ? EXIT_FAILURE : 0;
  } finally {
    await backend.close();
    data.close();
    val?.close();
  }
}
