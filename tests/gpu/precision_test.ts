// What `precision: "f16"` keeps in halves, and how far it is from float64: each operation, and the kernels of real adapters.
import type { WebGpuBackend } from "../../gpu/backend.ts";
import { withHalfBindings } from "../../gpu/half.ts";
import { TILES } from "../../gpu/kernels/matmul_tiles.ts";
import { lower } from "../../gpu/lower.ts";
import { storedProgram } from "../../gpu/storage.ts";
import { differentiate, dropUnreadOutputs } from "../../models/graph/autodiff.ts";
import { Program } from "../../models/graph/program.ts";
import { ReferenceBackend } from "../../models/graph/reference.ts";
import { linear } from "../../models/graph/ops/matmul.ts";
import { layerNorm } from "../../models/graph/ops/norm.ts";
import type { Op, OpKind } from "../../models/graph/ops/mod.ts";
import { rootOf, type Tensor, tensor } from "../../models/graph/tensor.ts";
import { assert, assertEquals, assertThrows } from "../assert.ts";
import { type OpCase, opCases } from "../models/graph/op_cases.ts";
import { assertAgrees } from "./compare.ts";
import { onHalfGpu } from "./open.ts";

/** A stored value is off by half a unit in its 11th bit, or by a whole one where the driver truncates, which WGSL allows. */
const ROUNDING = 2 ** -10;

/** Kinds with a slot that may be kept in halves. */
const KINDS: readonly OpKind[] = [
  "matmul",
  "gelu",
  "geluBackward",
  "layerNorm",
  "weightNorm",
  "attention",
  "attentionBackward",
  "attentionProbs",
  "patchify",
  "assembleTokens",
];

/** The case with its operands and results as activations, which alone are kept in halves: copied in before and out after. */
function throughActivations(test: OpCase): Program {
  const program = new Program(test.name);
  const moved = new Map<number, Tensor>();
  const move = (t: Tensor): Tensor => {
    const root = rootOf(t);
    if (t.dtype !== "f32" || root.role === "constant") return t;
    const made = moved.get(root.id) ?? tensor(root.name, root.shape, "activation");
    moved.set(root.id, made);
    return t.base ? { ...t, base: made, role: "activation" } : made;
  };
  const moveAll = (slots: object) =>
    Object.fromEntries(Object.entries(slots).map(([slot, t]) => [slot, t && move(t as Tensor)]));
  const ops = test.program.ops.map((op) => ({ ...op, in: moveAll(op.in), out: moveAll(op.out) }) as Op);
  for (const root of test.program.roots()) {
    const y = moved.get(root.id);
    if (y) program.emit<Op>({ kind: "copy", in: { x: root }, out: { y }, attrs: {} });
  }
  for (const op of ops) program.emit(op);
  for (const y of test.outputs) {
    const x = moved.get(rootOf(y).id);
    if (!x || y.base) continue;
    const wide = program.activation(y.name, y.shape); // what the host reads is copied from f32
    program.emit<Op>({ kind: "copy", in: { x }, out: { y: wide }, attrs: {} });
    program.emit<Op>({ kind: "copy", in: { x: wide }, out: { y }, attrs: {} });
  }
  return program;
}

/** To the nearest f16, as a float. */
function toHalf(x: number): number {
  if (!Number.isFinite(x) || x === 0) return x;
  const unit = 2 ** (Math.max(Math.floor(Math.log2(Math.abs(x))), -14) - 10);
  const below = Math.floor(x / unit), rest = x / unit - below;
  return (rest > 0.5 || rest === 0.5 && below % 2 !== 0 ? below + 1 : below) * unit;
}

async function compareCases(backend: WebGpuBackend): Promise<void> {
  const failures: string[] = [], covered = new Set<OpKind>(), kernels = new Set<string>();
  let worst = 0;
  for (const test of opCases()) {
    const { kind } = test.program.ops.at(-1)!;
    if (!KINDS.includes(kind)) continue;
    const program = throughActivations(test);
    dropUnreadOutputs(program);
    const { program: stored, halves } = storedProgram(program, "f16");
    const used = lower(stored, backend.limits, undefined, halves).dispatches.map((d) => d.kernel.name);
    if (used.every((name) => kernels.has(name))) continue; // a software adapter takes a second to build a kernel
    used.forEach((name) => kernels.add(name));
    if (halves.size > 0) covered.add(kind);
    const reference = new ReferenceBackend();
    for (const each of [reference, backend]) {
      // Operands that f16 holds exactly, so that only the operation is measured.
      for (const [t, data] of test.inputs) each.write(t, t.dtype === "f32" ? (data as Float32Array).map(toHalf) : data);
      const executable = await each.compile(program);
      await executable.run();
      executable.dispose();
    }
    for (const t of test.outputs) {
      const got = await backend.read(t), truth = reference.at(t);
      const largest = truth.reduce((a, b) => Math.max(a, Math.abs(b)), 1);
      let error = 0;
      truth.forEach((value, i) => error = Math.max(error, Number.isNaN(got[i]) ? Infinity : Math.abs(got[i] - value)));
      worst = Math.max(worst, error / largest);
      if (!(error <= (test.tolerance + ROUNDING) * largest)) {
        failures.push(`${test.name}: ${t.name} off by ${error} of ${largest}, allowed ${test.tolerance + ROUNDING}`);
      }
    }
    backend.free(...test.inputs.map(([t]) => t), ...test.outputs);
  }
  assertEquals(KINDS.filter((kind) => !covered.has(kind)), [], "kinds without a case in halves");
  assert(failures.length === 0, `\n${failures.join("\n")}`);
  assert(worst > 2 ** -14, `nothing was rounded to 11 bits: the worst error is ${worst}`);
}

onHalfGpu("operations on halves agree with the float64 reference", compareCases);

onHalfGpu("operations on halves agree with the reference in the kernels of real adapters", async (backend) => {
  backend.limits = { ...backend.limits, fallback: false, lanes: 0 };
  await compareCases(backend);
}, { strict: true });

onHalfGpu(
  "an MLP on halves and its gradients agree with the reference, in large tiles and split sums",
  async (backend) => {
    backend.limits = { ...backend.limits, fallback: false, lanes: 0 };
    backend.chooseMatmul = ({ transA }) => ({ tile: TILES["64x64x16"], splits: transA ? 3 : 1 });
    const x = tensor("x", [131, 68], "input"),
      gain = tensor("gain", [68], "param"),
      bias = tensor("bias", [68], "param");
    const w1 = tensor("w1", [132, 68], "param"), w2 = tensor("w2", [36, 132], "param");
    const dy = tensor("dy", [131, 36], "input"), y = tensor("y", dy.shape, "output");
    const weights = [gain, w1, w2], gradients = weights.map((w) => tensor(`d${w.name}`, w.shape, "state"));
    const program = () => {
      const p = new Program("mlp");
      const made = linear(p, linear(p, layerNorm(p, x, gain, bias, 1e-6), w1, undefined, { gelu: true }), w2);
      p.emit<Op>({ kind: "copy", in: { x: made }, out: { y }, attrs: {} });
      differentiate(p, { seeds: [[made, dy]], wrt: weights.map((w, i) => [w, gradients[i]]) });
      return p;
    };
    const stored = storedProgram(program(), "f16");
    const names = stored.program.roots().filter(({ id }) => stored.halves.has(id)).map(({ name }) => name).sort();
    assertEquals(names, ["half(w1)", "half(w2)", "linear(w1)", "linear(w1).pre", "norm(x)"]);
    // Three roundings on the way to y, six on the way back.
    const inputs = [x, gain, bias, w1, w2, dy];
    await assertAgrees("mlp", backend, program, inputs, [y, ...gradients], 6 * ROUNDING);
  },
);

Deno.test("precision: loads and stores of halves are converted wherever they stand, and nothing else", () => {
  const text = `// y[i] = x[i]
@group(0) @binding(1) var<storage, read_write> x: array<V>;
@group(0) @binding(2) var<storage, read_write> y: array<V>;
fn main() { y[at(x[i])] += fma(x[2u * y[j]], z.x[k], maxx[i]); if (x[i] == y[i]) { v = x[i].y; } }`;
  const kernel = withHalfBindings({
    name: "k",
    sources: [{ file: "scalar", text: "alias V = f32;" }, { file: "k", text }],
  }, [
    1,
  ]);
  const [, code, helpers] = kernel.sources.map((source) => source.text);
  assertEquals(
    code,
    `
@group(0) @binding(1) var<storage, read_write> x: array<V>;
@group(0) @binding(2) var<storage, read_write> y: array<HalfV>;
fn main() { y[at(x[i])] = round_V(V(y[at(x[i])]) + (fma(x[2u * V(y[j])], z.x[k], maxx[i]))); ` +
      `if (x[i] == V(y[i])) { v = x[i].y; } }`,
  );
  assert(helpers.includes("alias HalfV = f16;") && kernel.half, helpers);
  assertThrows(
    () => withHalfBindings({ name: "k", sources: [{ file: "k", text: text.replaceAll("<V>", "<u32>") }] }, [0]),
    TypeError,
    "x of u32 cannot be kept as f16",
  );
});
