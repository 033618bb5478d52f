// Products whose operands go through a layer norm, a GELU or factors of rows as they are read: every tile, forced, and the kernels of software adapters.
import type { WebGpuBackend } from "../../gpu/backend.ts";
import type { GpuExecutable } from "../../gpu/executable.ts";
import { TILES } from "../../gpu/kernels/matmul_tiles.ts";
import type { MatmulOp, Prologue } from "../../models/graph/ops/matmul.ts";
import { Program } from "../../models/graph/program.ts";
import { size, type Tensor, tensor } from "../../models/graph/tensor.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";
import { assertAgrees, randomValues } from "./compare.ts";
import { onGpu } from "./open.ts";

interface Shape {
  m: number;
  n: number;
  k: number;
  transA?: boolean;
  transB?: boolean;
  a?: Prologue;
  b?: Prologue;
  splits?: number;
  rides?: "gelu" | "residual";
}

/** As training meets them: forward, the weight's gradient, the input's; then odd extents, and what only tests ask for. */
const TRAINING: readonly Shape[] = [
  { m: 70, n: 68, k: 36, transB: true, a: "layerNorm", rides: "gelu" },
  { m: 36, n: 68, k: 70, transA: true, b: "layerNorm", splits: 3 },
  { m: 36, n: 68, k: 70, transA: true, a: "scaleRows", b: "gelu", splits: 2 },
];
const OTHERS: readonly Shape[] = [
  { m: 70, n: 36, k: 68, transB: true, a: "gelu", rides: "residual" },
  { m: 70, n: 36, k: 68, transB: true, a: "layerNorm", rides: "residual" }, // more than eight bindings: stored first
  { m: 70, n: 68, k: 36, a: "scaleRows" },
  { m: 35, n: 33, k: 37, transB: true, a: "layerNorm" },
  { m: 33, n: 35, k: 70, transA: true, a: "scaleRows", b: "layerNorm" },
  { m: 33, n: 35, k: 41, transA: true, transB: true, a: "layerNorm", b: "gelu", splits: 2 },
  { m: 33, n: 30, k: 41, transB: true, b: "scaleRows", a: "gelu" },
];

const GROUPS = 5;

/** Operands of a product, and the product itself. */
function product({ m, n, k, transA = false, transB = false, a: kindA, b: kindB, rides }: Shape) {
  const a = tensor("a", transA ? [k, m] : [m, k], "input"), b = tensor("b", transB ? [n, k] : [k, n], "input");
  const ahead = (x: Tensor, kind: Prologue | undefined) => {
    const [rows, columns] = x.shape;
    if (kind === "scaleRows") return [tensor("scale", [rows % GROUPS === 0 ? GROUPS : rows], "input")];
    if (kind !== "layerNorm") return [];
    return [[rows, 2], [columns], [columns]].map((shape, i) => tensor(`norm ${i}`, shape, "input"));
  };
  const [aRows, aWeight, aBias] = ahead(a, kindA), [bRows, bWeight, bBias] = ahead(b, kindB);
  const bias = rides ? tensor("bias", [n], "input") : undefined;
  const residual = rides === "residual" ? tensor("residual", [m, n], "input") : undefined;
  const pre = rides === "gelu" ? tensor("pre", [m, n], "output") : undefined;
  const c = tensor("c", [m, n], "output");
  const slots = { a, b, bias, residual, aRows, aWeight, aBias, bRows, bWeight, bBias };
  const program = () => {
    const p = new Program("product");
    const attrs = { transA, transB, epilogue: rides === "gelu" ? "gelu" : "none", accumulate: false } as const;
    p.emit<MatmulOp>({
      kind: "matmul",
      in: slots,
      out: { c, pre },
      attrs: { ...attrs, prologueA: kindA, prologueB: kindB },
    });
    return p;
  };
  const inputs = Object.values(slots).filter((t) => t !== undefined);
  return { program, inputs, outputs: [c, ...pre ? [pre] : []] };
}

async function check(backend: WebGpuBackend, what: string, shape: Shape): Promise<void> {
  const { program, inputs, outputs } = product(shape);
  // Sums of k products of numbers of order 1, each rounded, and GELU's own error.
  const tolerance = 8 * Math.sqrt(shape.k) * 2 ** -23;
  await assertAgrees(`${what} ${JSON.stringify(shape)}`, backend, program, inputs, outputs, tolerance);
}

onGpu("products with prologues agree with the reference in every tile", async (backend) => {
  backend.limits = { ...backend.limits, lanes: 0 };
  for (const [i, [name, tile]] of Object.entries(TILES).entries()) {
    // A software adapter takes seconds to build a large tile; they differ from small ones in their loads alone.
    const shapes = name === "32x32x8" ? [...TRAINING, ...OTHERS] : tile.tm === 4 ? TRAINING : [TRAINING[i % 3]];
    for (const shape of shapes) {
      backend.chooseMatmul = () => ({ tile, splits: shape.splits ?? 1 });
      await check(backend, name, shape);
    }
  }
});

onGpu("products with prologues agree with the reference where operands are stored first", async (backend) => {
  if (backend.limits.lanes === 0) console.log("tests/gpu: no lane products on this adapter, tiles are used");
  for (const shape of [...TRAINING, ...OTHERS]) await check(backend, "lanes", shape);
});

onGpu("prologues index rows and columns rightly in products cut below the binding limit", async (backend) => {
  const whole = backend.limits;
  const CASES: readonly Shape[] = [
    { m: 256, n: 64, k: 64, transB: true, a: "layerNorm" },
    { m: 64, n: 64, k: 256, transA: true, a: "scaleRows", b: "layerNorm" },
    { m: 128, n: 64, k: 128, a: "layerNorm", b: "scaleRows" }, // over the inner extent: a's columns are brought together
    { m: 64, n: 256, k: 64, transB: true, a: "gelu", b: "layerNorm" },
  ];
  for (const lanes of whole.lanes > 0 ? [whole.lanes, 0] : [0]) {
    for (const shape of CASES) {
      backend.limits = { ...whole, lanes, bindingBytes: 16384 };
      const { dispatches } = await backend.compile(product(shape).program()) as GpuExecutable;
      assert(dispatches.length > 1, `${JSON.stringify(shape)}: ${dispatches.length} dispatches`);
      assert(dispatches.every(({ bindings }) => bindings.length <= 8), `${JSON.stringify(shape)}: too many bindings`);
      await check(backend, `lanes ${lanes}`, shape);
    }
  }
});

onGpu("prologues change no bit of a product", async (backend) => {
  for (const shape of [...TRAINING, ...OTHERS]) {
    const { program, inputs, outputs } = product(shape);
    const results = [];
    inputs.forEach((t, i) => backend.write(t, randomValues(size(t), i + 1)));
    for (const apart of [true, false]) {
      backend.chooseMatmul = () => ({ tile: TILES["32x32x8"], splits: shape.splits ?? 1, apart });
      const executable = await backend.compile(program());
      await executable.run();
      results.push(await Promise.all(outputs.map((t) => backend.read(t))));
      executable.dispose();
    }
    assert(JSON.stringify(results[0]) === JSON.stringify(results[1]), JSON.stringify(shape));
  }
});

onGpu("tiles are timed and checked with what operands go through", async (backend) => {
  backend.limits = { ...backend.limits, workgroupBytes: 4096 }; // only the smallest tile fits
  const shape = { m: 40, n: 36, k: 44, transA: false, transB: true };
  for (const prologues of [{ prologueA: "layerNorm" }, { prologueA: "scaleRows", prologueB: "gelu" }] as const) {
    const { chosen, wrong } = await backend.compareTiles({ ...shape, ...prologues });
    assertEquals([chosen, wrong], ["32x32x8", []]);
  }
  const compile = backend.compileWith.bind(backend);
  backend.compileWith = (program, options) => {
    // As a driver's fault would: the operand without its prologue.
    const [op] = program.ops;
    if (op.kind === "matmul") program.ops[0] = { ...op, attrs: { ...op.attrs, prologueA: undefined } };
    return compile(program, options);
  };
  await assertRejects(() => backend.compareTiles({ ...shape, prologueA: "gelu" }), Error, "every tile");
});
