// How many batches the running statistics of each batch norm have seen: counted on the host, by what the programs of an update do.

import type { Arena } from "../models/graph/arena.ts";
import { batchesTracked } from "../models/graph/ops/batch_norm.ts";
import { batchCountName } from "../models/weights/network.ts";
import type { DinoState } from "./state.ts";
import type { StepPrograms } from "./step.ts";

/** Counts by their names in a checkpoint, such as `student.backbone.bn1.num_batches_tracked`. */
export type BatchCounts = ReadonlyMap<string, number>;

/** What one update adds to each count: the passes its programs make with the statistics of the crops. */
export function batchesOfUpdate(state: DinoState, { parts, update }: StepPrograms): BatchCounts {
  const programs = [...parts, ...update ? [update] : []];
  const counts = new Map<string, number>();
  const count = (role: string, moving: Arena) => {
    for (const [name, tensor] of moving.tensors) {
      if (!name.endsWith(".running_mean")) continue;
      const passes = programs.reduce((sum, program) => sum + batchesTracked(program, tensor), 0);
      counts.set(`${role}.${batchCountName(name)}`, passes);
    }
  };
  count("student", state.studentMoving);
  count("teacher", state.teacherMoving);
  return counts;
}

/** Counts after so many updates. @param before what the networks had seen when they began */
export function countsAfter(before: BatchCounts | undefined, ofUpdate: BatchCounts, updates: number): BatchCounts {
  return new Map([...ofUpdate].map(([name, passes]) => [name, (before?.get(name) ?? 0) + updates * passes]));
}
