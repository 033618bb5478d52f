// The tensors of a run that a checkpoint holds, under their published names.

import type { Arena } from "../../models/graph/arena.ts";
import type { Tensor } from "../../models/graph/tensor.ts";
import type { CheckpointTensors } from "./checkpoint.ts";
import type { DinoState } from "../state.ts";

/** Both networks with their batch-norm buffers, the optimizer's moments and the center. */
export function checkpointTensors(state: DinoState): CheckpointTensors {
  const tensors = new Map<string, Tensor>();
  const add = (prefix: string, arena: Arena | undefined) => {
    for (const [name, tensor] of arena?.tensors ?? []) tensors.set(`${prefix}.${name}`, tensor);
  };
  add("student", state.student);
  add("student", state.studentBuffers);
  add("teacher", state.teacher);
  add("teacher", state.teacherBuffers);
  add("optimizer.exp_avg", state.first);
  add("optimizer.exp_avg_sq", state.second);
  return tensors.set("center", state.center);
}
