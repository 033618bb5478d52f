// Runs a program once on a backend: inputs in, outputs back.
import { Arena, layoutSegments, packSegments } from "../../models/graph/arena.ts";
import type { Backend } from "../../models/graph/backend.ts";
import { batchesTracked } from "../../models/graph/ops/batch_norm.ts";
import { batchCountName } from "../../models/weights/network.ts";
import type { Program } from "../../models/graph/program.ts";
import { emitCopy } from "../../models/graph/ops/elementwise.ts";
import { type Tensor, tensor, type TensorData } from "../../models/graph/tensor.ts";
import type { Parameters } from "../../models/vit.ts";
import type { GoldenCase } from "./golden_case.ts";

/** A host-readable copy of `t`, made at the end of what was emitted so far. */
export function output(p: Program, t: Tensor): Tensor {
  const made = tensor(`out(${t.name})`, t.shape, "output", t.dtype);
  emitCopy(p, t, made);
  return made;
}

/** An input holding `data`. */
export function input(backend: Backend, name: string, shape: readonly number[], data: TensorData): Tensor {
  const made = tensor(name, shape, "input");
  backend.write(made, data);
  return made;
}

/** Compiles, runs and forgets. */
export async function runOnce(backend: Backend, program: Program): Promise<void> {
  const executable = await backend.compile(program);
  await executable.run();
  await backend.finish();
  executable.dispose();
}

/** Holds the counts behind running statistics against what the program that was run does to each. */
export function compareBatchCounts(golden: GoldenCase, program: Program, buffers: Arena): void {
  for (const { name } of buffers.segments.filter(({ name }) => name.endsWith(".running_mean"))) {
    const count = batchCountName(name), passes = batchesTracked(program, buffers.get(name));
    golden.compare(`state_after.${count}`, [golden.data(`param.${count}`)[0] + passes]);
  }
}

/** Parameters of a case, by their names after `prefix`, on the device, with gradient buffers of the same layout. */
export function loadParameters(
  backend: Backend,
  golden: GoldenCase,
  prefix: string,
  shapes: [name: string, shape: number[]][],
): { arena: Arena; gradients: Arena; parameters: Parameters } {
  const segments = layoutSegments(shapes);
  const arena = new Arena("param", segments);
  const gradients = new Arena("gradient", segments, "state");
  backend.write(arena.flat, packSegments(segments, (s) => golden.floats(prefix + s.name)));
  return { arena, gradients, parameters: (name) => arena.get(name) };
}
