// Runs a program on a backend and on the float64 reference, and compares what both leave in tensors.
import type { Backend } from "../../models/graph/backend.ts";
import type { Program } from "../../models/graph/program.ts";
import { ReferenceBackend } from "../../models/graph/reference.ts";
import { size, type Tensor, type TensorData } from "../../models/graph/tensor.ts";
import { assert } from "../assert.ts";
import { RandomNumbers } from "./random.ts";

/** Random values in (−1, 1), the same on every call with the same seed. */
export function randomValues(n: number, seed: number, scale = 1): Float32Array {
  const random = new RandomNumbers(seed);
  return Float32Array.from({ length: n }, () => scale * random.next());
}

/** Writes random values to `inputs`, runs, and asserts that `outputs` agree within `tolerance` of the largest magnitude. */
export async function assertAgrees(
  what: string,
  backend: Backend,
  makeProgram: () => Program,
  inputs: readonly Tensor[],
  outputs: readonly Tensor[],
  tolerance: number,
  values: (t: Tensor, i: number) => TensorData = (t, i) => randomValues(size(t), i + 1),
): Promise<void> {
  const reference = new ReferenceBackend();
  for (const each of [reference, backend]) {
    inputs.forEach((t, i) => each.write(t, values(t, i)));
    const executable = await each.compile(makeProgram());
    await executable.run();
    executable.dispose();
  }
  for (const t of outputs) {
    const truth = reference.at(t), got = await backend.read(t);
    let error = 0, largest = 1;
    for (let i = 0; i < truth.length; i++) {
      largest = Math.max(largest, Math.abs(truth[i]));
      error = Math.max(error, Number.isNaN(got[i]) ? Infinity : Math.abs(got[i] - truth[i]));
    }
    assert(error <= tolerance * largest, `${what}: ${t.name} off by ${error} of ${largest}, allowed ${tolerance}`);
  }
  backend.free(...inputs, ...outputs);
}
