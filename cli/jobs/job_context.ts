// What a job works with inside the compute process.

import type { ComputeEvent } from "../processes/messages.ts";
import type { Mode } from "../processes/mode.ts";

/** What a job is given to work with. */
export interface ComputeContext {
  readonly mode: Mode;
  readonly tell: (event: ComputeEvent) => void;
  /** Aborted when the job shall stop. */
  readonly signal: AbortSignal;
}
