// Two updates of a network that trains in a moment, and what they leave behind, for tests that compare ways to compute them.

import type { Backend } from "../../models/graph/backend.ts";
import type { Recomputation } from "../../models/graph/recompute.ts";
import type { Config } from "../../dino/config.ts";
import { initializeState } from "../../dino/initialize.ts";
import { OptimizerSteps } from "../../dino/optimizer.ts";
import { planRun, setUpStep } from "../../dino/run/plan.ts";
import { scheduledValues } from "../../dino/schedule.ts";
import { metricsOfRow } from "../../dino/state.ts";
import { toyConfig, toyPixels } from "./toy_run.ts";

/** Wide enough that activations of blocks are most of the memory, odd enough that tails are met. */
export const SIZES: Partial<Config> = {
  embedDim: 24,
  depth: 3,
  numHeads: 3,
  mlpRatio: 4,
  globalCropSize: 16,
  localCropSize: 8,
  localCropsNumber: 3,
  batchSize: 3,
  outDim: 33,
};

/** What updates leave behind. */
export interface Updated {
  readonly loss: number;
  readonly student: Float32Array;
  readonly center: Float32Array;
  readonly gradients: Float32Array;
}

/** Makes two updates, and tells what they left behind. */
export async function update(backend: Backend, changes: Partial<Config>, recompute?: Recomputation): Promise<Updated> {
  const data = toyPixels(12, 20);
  const plan = planRun(toyConfig({ ...SIZES, ...changes }), data);
  const { state, feed, programs } = setUpStep({ ...plan, recompute });
  const executables = await Promise.all(programs.parts.map((program) => backend.compile(program)));
  await initializeState(backend, state, plan.config);
  const optimizer = new OptimizerSteps(plan.config);
  const { batchSize } = plan.config;
  for (let step = 0; step < 2; step++) {
    const indices = Array.from({ length: batchSize }, (_, i) => step * batchSize + i);
    const batch = await data.readBatch(indices);
    const values = scheduledValues(plan.config, plan.stepsPerEpoch, step + 1);
    feed.plan(batch, indices, 0);
    backend.write(state.groups, optimizer.next(values));
    backend.write(state.scalars.get("teacherTemp"), Float32Array.of(values.teacherTemp));
    backend.write(state.scalars.get("teacherMomentum"), Float32Array.of(values.momentum));
    backend.write(state.scalars.get("ringRow"), Float32Array.of(0));
    feed.write(backend, batch, step, 0);
    for (const executable of executables) await executable.run();
  }
  const read = async (t: typeof state.center) => Float32Array.from(await backend.read(t));
  const { loss } = metricsOfRow(state, await backend.read(state.ring), 0);
  const result = {
    loss,
    student: await read(state.student.flat),
    center: await read(state.center),
    gradients: await read(state.gradients.flat),
  };
  for (const executable of executables) executable.dispose();
  for (const program of programs.parts) backend.free(...program.roots().filter(({ role }) => role !== "activation"));
  return result;
}
