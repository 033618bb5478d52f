// The doctor inside the compute process, where kernels run as they do in a run: in turbo mode, where there is one.

import { openBackend } from "../device/backend.ts";
import { diagnose } from "../doctor/diagnosis.ts";
import type { ComputeContext } from "./job_context.ts";
import type { DoctorJob } from "../processes/messages.ts";
import { EXIT_FAILURE } from "../terminal/failure.ts";

/** Runs the job; returns the exit status. */
export async function runDoctorJob(job: DoctorJob, { tell, signal }: ComputeContext): Promise<number> {
  const { backend, reason, details } = await openBackend(job.device);
  try {
    const { name, description } = backend;
    const diagnosis = await diagnose(backend, job.variants, signal);
    tell({ type: "diagnosis", name, description, reason, details, ...diagnosis });
    return diagnosis.off.length === 0 ? 0 : EXIT_FAILURE;
  } finally {
    await backend.close();
  }
}
