// The kernels that a software adapter replaces by its own are those of real adapters: here they run on any.
import { lower } from "../../gpu/lower.ts";
import { DEFAULT_LIMITS, workspaceBytes } from "../../gpu/mod.ts";
import type { OpKind } from "../../models/graph/ops/mod.ts";
import { ReferenceBackend } from "../../models/graph/reference.ts";
import { Program } from "../../models/graph/program.ts";
import { tensor } from "../../models/graph/tensor.ts";
import { matmul } from "../../models/graph/ops/matmul.ts";
import { assert } from "../assert.ts";
import { opCases } from "../models/graph/op_cases.ts";
import { onGpu } from "./open.ts";

/** Kinds whose rows are shared out otherwise on software adapters. Products and attention have tests of their own beside this. */
const KINDS: readonly OpKind[] = [
  "layerNorm",
  "layerNormBackward",
  "l2Normalize",
  "l2NormalizeBackward",
  "weightNorm",
  "weightNormBackward",
];

onGpu("row reductions of real adapters agree with the reference", async (backend) => {
  backend.limits = { ...backend.limits, fallback: false, lanes: 0 };
  for (const test of opCases().filter((test) => KINDS.includes(test.program.ops.at(-1)!.kind))) {
    const reference = new ReferenceBackend();
    for (const each of [reference, backend]) {
      for (const [t, data] of test.inputs) each.write(t, data);
      await (await each.compile(test.program)).run();
    }
    for (const t of test.outputs) {
      const got = await backend.read(t), truth = reference.at(t);
      const largest = truth.reduce((a, b) => Math.max(a, Math.abs(b)), 1);
      truth.forEach((value, i) =>
        assert(
          Math.abs(got[i] - value) <= test.tolerance * largest,
          `${test.name}: ${t.name}[${i}] is ${got[i]}, not ${value}`,
        )
      );
    }
    backend.free(...test.inputs.map(([t]) => t), ...test.outputs);
  }
});

Deno.test("a product's plan follows its shape: large tiles, and splits where c is small and k long", () => {
  const plan = (m: number, n: number, k: number, transA = false) => {
    const p = new Program("product");
    const a = tensor("a", transA ? [k, m] : [m, k], "input"), b = tensor("b", [k, n], "input");
    matmul(p, a, b, { transA });
    return { names: lower(p, DEFAULT_LIMITS).dispatches.map(({ kernel }) => kernel.name), scratch: workspaceBytes(p) };
  };
  assert(plan(25216, 1536, 384).names[0].includes("128x128"));
  assert(plan(64, 64, 64).names[0].includes("32x32"));
  const gradient = plan(384, 384, 25216, true);
  assert(gradient.names.length === 2 && gradient.scratch > 0, "a weight's gradient is split and summed");
});
