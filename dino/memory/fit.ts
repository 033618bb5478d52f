// The least that an update must compute again to fit where it is to run.

import type { Backend } from "../../models/graph/backend.ts";
import { Program } from "../../models/graph/program.ts";
import { tensor } from "../../models/graph/tensor.ts";
import { searchBytes } from "../eval/knn/device_neighbours.ts";
import { describeRecomputation, recomputations } from "./recomputations.ts";
import { type RunPlan, setUpStep, type StepPlan } from "../run/plan.ts";
import { distinctPrograms } from "../step.ts";

/** A backend, or one that is only planned, that can tell what it has room for. */
export type Room = Pick<Backend, "name" | "holds">;

/** The programs of an update, each once. */
export function programsOf(plan: StepPlan): Program[] {
  return distinctPrograms(setUpStep(plan).programs);
}

/** What has a place of its own besides the updates: the features that k-NN searches. */
function besides({ config, facts, network }: RunPlan, room: Room): Program[] {
  if (config.knnEvery === 0) return [];
  const floats = Math.ceil(searchBytes(room, facts.images, network.backbone.embedDim) / 4);
  const p = new Program("k-NN");
  const x = tensor("features", [floats], "input"), flag = tensor("flag", [1], "state");
  p.emit({ kind: "checkFinite", in: { x }, out: { flag }, attrs: {} });
  return [p];
}

/**
 * With `--recompute auto`: the plan with the cheapest recomputation that `room` holds, and a notice if that is any. Where nothing
 * fits it is the one that takes least, whose refusal names what would. Other plans, and rooms that cannot tell, are left alone.
 */
export async function fitRecomputation(plan: RunPlan, room: Room): Promise<RunPlan> {
  if (plan.config.recompute !== "auto" || !room.holds) return plan;
  const choices = recomputations(plan.config);
  const others = besides(plan, room);
  let chosen = choices.at(-1)!;
  for (const recompute of choices) {
    if (!await room.holds([...programsOf({ ...plan, recompute }), ...others], plan.config.precision)) continue;
    chosen = recompute;
    break;
  }
  if (chosen === choices[0]) return plan;
  const notice = `to save memory, ${describeRecomputation(chosen)}; results stay the same to the bit`;
  return { ...plan, recompute: chosen, notices: [...plan.notices, notice] };
}
