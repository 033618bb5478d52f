// Every kind of operation on every backend against the float64 reference, at odd extents.
import { ReferenceBackend } from "../../../models/graph/reference.ts";
import { OP_KINDS } from "../../../models/graph/ops/mod.ts";
import type { Backend } from "../../../models/graph/backend.ts";
import { size } from "../../../models/graph/tensor.ts";
import { assert } from "../../assert.ts";
import { onEachBackend } from "../../backends.ts";
import { type OpCase, opCases } from "./op_cases.ts";

async function runCase(backend: Backend, test: OpCase): Promise<void> {
  for (const [t, data] of test.inputs) backend.write(t, data);
  const executable = await backend.compile(test.program);
  await executable.run();
  await backend.finish();
}

/** Largest |got − truth| / max(1, max |truth|) of an output; infinite when an element is not a number. */
function relativeError(got: ArrayLike<number>, truth: Float64Array): number {
  let error = 0, largest = 1;
  for (let i = 0; i < truth.length; i++) {
    largest = Math.max(largest, Math.abs(truth[i]));
    const difference = Math.abs(got[i] - truth[i]);
    if (!(difference <= error)) error = Number.isNaN(difference) ? Infinity : difference;
  }
  return error / largest;
}

// One test for each kind of operation keeps a report readable; within it, each case names itself when it fails.
for (const kind of OP_KINDS) {
  const ofKind = () => opCases().filter((test) => test.program.ops.at(-1)!.kind === kind);
  if (kind === "augment") continue; // compared bit for bit with the integer reference in tests/models/image
  onEachBackend(`operation ${kind} agrees with the float64 reference`, async (backend) => {
    const cases = ofKind();
    assert(cases.length > 0, `no case covers ${kind}`);
    const failures: string[] = [];
    for (const test of cases) {
      const truth = new ReferenceBackend();
      await runCase(truth, test);
      await runCase(backend, test);
      for (const t of test.outputs) {
        const got = await backend.read(t);
        assert(got.length === size(t), `${test.name}: ${t.name} has ${got.length} elements`);
        const error = relativeError(got, truth.at(t));
        if (!(error <= test.tolerance)) {
          failures.push(`${test.name}: ${t.name} off by ${error}, allowed ${test.tolerance}`);
        }
      }
      backend.free(...test.inputs.map(([t]) => t), ...test.outputs);
    }
    assert(failures.length === 0, `\n${failures.join("\n")}`);
  }, { backends: ["wasm", "webgpu"] });
}
