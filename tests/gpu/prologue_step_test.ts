// An update whose layer norms, GELUs and row factors have moved into products: the same numbers in less memory, on every path.
import type { WebGpuBackend } from "../../gpu/backend.ts";
import { arenaBytes, type LoweringLimits, PROLOGUE_USES, type PrologueUse } from "../../gpu/mod.ts";
import { prepareProgram } from "../../gpu/lower.ts";
import { TILES } from "../../gpu/kernels/matmul_tiles.ts";
import { movePrologues } from "../../gpu/prologues.ts";
import { differentiate, dropUnreadOutputs } from "../../models/graph/autodiff.ts";
import { emitCopy, gelu } from "../../models/graph/ops/elementwise.ts";
import { linear, matmul } from "../../models/graph/ops/matmul.ts";
import { layerNorm } from "../../models/graph/ops/norm.ts";
import { Program } from "../../models/graph/program.ts";
import { ReferenceBackend } from "../../models/graph/reference.ts";
import { reshape, size, type Tensor, tensor } from "../../models/graph/tensor.ts";
import type { Recomputation } from "../../models/graph/recompute.ts";
import { recomputations } from "../../dino/memory/recomputations.ts";
import { planRun, setUpStep } from "../../dino/run/plan.ts";
import { assert, assertEquals, assertThrows } from "../assert.ts";
import { toyConfig, toyPixels } from "../dino/toy_run.ts";
import { SIZES, update, type Updated } from "../dino/toy_update.ts";
import { assertAgrees, randomValues } from "./compare.ts";
import { onGpu, onHalfGpu } from "./open.ts";

/** Two blocks with drop path, whose factors of rows belong to every residual branch. */
const DROPPING = { depth: 2, dropPathRate: 0.2 };

function step(recompute?: Recomputation): Program {
  const plan = planRun(toyConfig({ ...SIZES, ...DROPPING }), toyPixels(6, 20));
  const [program] = setUpStep({ ...plan, recompute }).programs.parts;
  dropUnreadOutputs(program);
  return program;
}

function countOf(program: Program, kind: string): number {
  return program.ops.filter((op) => op.kind === kind).length;
}

Deno.test("prologues: an update without stored norms, GELUs and scaled gradients, in less memory", () => {
  for (const recompute of recomputations({ precision: "f32" })) {
    const program = step(recompute), moved = movePrologues(program, "all");
    assert(moved.ops.every((op) => op.kind !== "layerNorm" || op.out.y === undefined), "a normalised row is stored");
    assertEquals([countOf(moved, "gelu"), countOf(moved, "scaleRows")], [0, 0]);
    // All GELUs but the teacher's, whose arguments nobody keeps.
    const keepBoth = (p: Program) =>
      p.ops.some((op) => op.kind === "matmul" && op.attrs.epilogue === "gelu" && op.out.pre !== undefined);
    assert(keepBoth(program) && !keepBoth(moved));
    assertEquals(moved.gradients, program.gradients);
    const bytes = PROLOGUE_USES.map((prologues) => arenaBytes(step(recompute), "f32", { prologues }));
    // Where rows and GELUs are computed again anyway, only statistics are added.
    assert(bytes.slice(1).every((b) => b < (recompute.rows ? 1.02 : 0.75) * bytes[0]), `${recompute.rows}: ${bytes}`);
  }
});

/** What a program leaves in its outputs, in float64. */
async function inFloat64(program: Program, inputs: readonly Tensor[], outputs: readonly Tensor[]) {
  const reference = new ReferenceBackend();
  inputs.forEach((t, i) => reference.write(t, randomValues(size(t), i + 1)));
  await (await reference.compile(program)).run();
  return outputs.map((t) => [...reference.at(t)]);
}

Deno.test("prologues: what moves, and what must stay", async () => {
  const x = tensor("x", [6, 4], "input"), w = tensor("w", [4, 4], "input");
  const gain = tensor("gain", [4], "input"), bias = tensor("bias", [4], "input");
  const y = tensor("y", [6, 4], "output"), z = tensor("z", [6, 4], "output");
  const square = tensor("square", [6, 6], "output");
  const norm = (p: Program, of: Tensor) => layerNorm(p, of, gain, bias, 1e-6);
  const CASES: readonly { what: string; write: (p: Program) => void; moves: number }[] = [
    { what: "one reader", write: (p) => matmul(p, norm(p, x), w, { into: y }), moves: 1 },
    {
      what: "two readers",
      moves: 1,
      write: (p) => {
        const rows = norm(p, x);
        matmul(p, rows, w, { into: y });
        matmul(p, rows, w, { transB: true, into: z });
      },
    },
    {
      what: "a reader that is no product",
      moves: 0,
      write: (p) => {
        const rows = norm(p, x);
        matmul(p, rows, w, { into: y });
        emitCopy(p, rows, z);
      },
    },
    {
      what: "both operands of one product",
      write: (p) => matmul(p, norm(p, x), norm(p, x), { transB: true, into: square }),
      moves: 1,
    },
    {
      what: "the same rows twice in one product",
      moves: 0,
      write: (p) => {
        const rows = norm(p, x);
        matmul(p, rows, rows, { transB: true, into: square });
      },
    },
    {
      what: "rows seen through a view",
      moves: 0,
      write: (p) => matmul(p, reshape(norm(p, x), [6, 4]), w, { into: y }),
    },
    {
      what: "what they are made of changes before they are read",
      moves: 0,
      write: (p) => {
        const moving = p.activation("moving", [6, 4]);
        emitCopy(p, x, moving);
        const rows = gelu(p, moving);
        emitCopy(p, z, moving);
        matmul(p, rows, w, { into: y });
      },
    },
    {
      what: "what the host reads",
      moves: 0,
      write: (p) => {
        p.emit({ kind: "gelu", in: { x }, out: { y: z }, attrs: {} });
        matmul(p, z, w, { into: y });
      },
    },
    { what: "a GELU of a norm", write: (p) => matmul(p, gelu(p, norm(p, x)), w, { into: y }), moves: 1 },
  ];
  for (const { what, write, moves } of CASES) {
    const program = new Program(what);
    write(program);
    dropUnreadOutputs(program);
    const moved = movePrologues(program, "all");
    const prologues = moved.ops.filter((op) => op.kind === "matmul" && (op.attrs.prologueA ?? op.attrs.prologueB));
    assertEquals(prologues.length > 0, moves > 0, `${what}:\n${moved}`);
    const outputs = [y, z, square];
    const inputs = [x, w, gain, bias, z];
    assertEquals(await inFloat64(moved, inputs, outputs), await inFloat64(program, inputs, outputs), what);
    assert(movePrologues(program, "none") === program);
  }
  const p = new Program("differentiated afterwards");
  const made = linear(p, norm(p, x), w);
  const moved = movePrologues(p, "all"), dw = tensor("dw", [4, 4], "output");
  assertThrows(() => differentiate(moved, { seeds: [[made, y]], wrt: [[w, dw]] }), TypeError, "differentiate first");
});

Deno.test("prologues: GELUs stay where products would compute them too often", () => {
  const kept = (width: number) => {
    const p = new Program("mlp");
    const x = tensor("x", [64, width], "input"), dy = tensor("dy", [64, width], "input");
    const w1 = tensor("w1", [4 * width, width], "param"), w2 = tensor("w2", [width, 4 * width], "param");
    const grads = [w1, w2].map((w) => [w, tensor(`d${w.name}`, w.shape, "state")] as const);
    const y = linear(p, linear(p, x, w1, undefined, { gelu: true }), w2);
    differentiate(p, { seeds: [[y, dy]], wrt: grads });
    return prepareProgram(p, { prologues: "saving" }, "f32").program.ops.some((op) =>
      op.kind === "matmul" && op.attrs.epilogue === "gelu"
    );
  };
  assertEquals([192, 384, 768].map((width) => kept(width)), [false, false, true]); // ViT-Ti, -S, -B
});

/** Little workgroup memory: large tiles take a software adapter many seconds to build. */
const REAL = { fallback: false, lanes: 0, workgroupBytes: 9728 };

/** Updates in each way, on kernels of one sort. */
async function compareUses(
  backend: WebGpuBackend,
  kernels: Partial<LoweringLimits>,
  ways: readonly (readonly [PrologueUse, Recomputation])[],
  agree: (got: Updated, kept: Updated, what: string) => void,
): Promise<void> {
  const whole = backend.limits;
  const of = async (prologues: PrologueUse, recompute: Recomputation) => {
    backend.limits = { ...whole, ...kernels, prologues };
    const updated = await update(backend, { ...DROPPING, precision: backend.precision }, recompute);
    backend.limits = whole;
    return updated;
  };
  const kept = await of("none", {});
  assert(Number.isFinite(kept.loss) && kept.loss > 0);
  for (const [use, recompute] of ways) {
    agree(await of(use, recompute), kept, `${use} ${JSON.stringify(recompute)} ${JSON.stringify(kernels)}`);
  }
}

onGpu("prologues: two updates are the same to the bit, whatever products compute as they read", async (backend) => {
  const [, light, , , , all] = recomputations({ precision: "f32" });
  await compareUses(backend, {}, [["all", {}]], assertEquals);
  await compareUses(backend, REAL, [["saving", {}], ["all", light], ["all", all]], assertEquals);
});

onHalfGpu("prologues: two updates on halves are the same but for what is no longer rounded", async (backend) => {
  await compareUses(backend, REAL, [["saving", {}], ["all", {}]], (got, kept, what) => {
    // A loss of order 3 and gradients of order 1, from activations rounded to 2⁻¹¹ or not.
    assert(Math.abs(got.loss - kept.loss) < 1e-3 * kept.loss, `${what}: loss ${got.loss} instead of ${kept.loss}`);
    const largest = Math.max(...kept.gradients.map(Math.abs));
    const off = Math.max(...got.gradients.map((g, i) => Math.abs(g - kept.gradients[i])));
    assert(off < 2e-2 * largest, `${what}: gradients off by ${off} of ${largest}`);
  });
}, { strict: true }); // no dispatch binds memory twice

onHalfGpu(
  "prologues: norm and MLP of a block and their gradients on halves agree with the reference",
  async (backend) => {
    backend.limits = { ...backend.limits, ...REAL, prologues: "all" };
    backend.chooseMatmul = ({ transA }) => ({ tile: TILES["32x32x8"], splits: transA ? 3 : 1 });
    const x = tensor("x", [132, 68], "input"), dy = tensor("dy", x.shape, "input"), y = tensor("y", x.shape, "output");
    const scale = tensor("scale", [4], "input"), dx = tensor("dx", x.shape, "output");
    const parameters = [[68], [68], [132, 68], [132], [68, 132], [68]].map((shape, i) =>
      tensor(`w${i}`, shape, "param")
    );
    const [gain, bias, w1, b1, w2, b2] = parameters;
    const gradients = parameters.map((t) => tensor(`d${t.name}`, t.shape, "state"));
    const program = () => {
      const p = new Program("half of a block");
      const hidden = linear(p, layerNorm(p, x, gain, bias, 1e-6), w1, b1, { gelu: true });
      const made = linear(p, hidden, w2, b2, { residual: x, rowScale: scale });
      emitCopy(p, made, y);
      differentiate(p, {
        seeds: [[made, dy]],
        wrt: [[x, dx], ...parameters.map((w, i) => [w, gradients[i]] as const)],
      });
      return p;
    };
    const { program: stored, halves } = prepareProgram(program(), backend.limits, "f16");
    const products = stored.ops.filter((op) => op.kind === "matmul");
    const half = products.filter((op) => op.attrs.prologueA === "gelu" && halves.has(op.in.a.id));
    assertEquals([products.length, half.length], [6, 1]); // GELU of an argument in halves
    // Arguments and weights rounded to 11 bits on the way to y, and on the way back again.
    await assertAgrees("block", backend, program, [x, dy, scale, ...parameters], [y, dx, ...gradients], 6 * 2 ** -10);
  },
);
