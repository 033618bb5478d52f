// The tuner on whatever adapter there is, with tiles forced: what it chooses, checks, remembers, and that bits never change.
import { Tuner, type TuningCache } from "../../gpu/autotune.ts";
import { compareTiles } from "../../gpu/tuning/matmul.ts";
import { attentionChoiceName } from "../../gpu/attention_choice.ts";
import type { GpuExecutable } from "../../gpu/executable.ts";
import { attention } from "../../models/graph/ops/attention.ts";
import { emitCopy } from "../../models/graph/ops/elementwise.ts";
import { TuningOperands } from "../../gpu/tuning/operands.ts";
import { chooseTile, type TileName, TILES } from "../../gpu/kernels/matmul_tiles.ts";
import { linear, matmul } from "../../models/graph/ops/matmul.ts";
import { Program } from "../../models/graph/program.ts";
import { tensor } from "../../models/graph/tensor.ts";
import { assert, assertEquals } from "../assert.ts";
import { randomValues } from "./compare.ts";
import { onGpu, onHalfGpu } from "./open.ts";

const a = tensor("a", [70, 90], "input"), b = tensor("b", [50, 90], "input"), c = tensor("c", [70, 50], "output");

function product(): Program {
  const p = new Program("product");
  matmul(p, a, b, { transB: true, into: c });
  return p;
}

onGpu("the tuner times tiles, keeps the fastest, and finds it again in its cache", async (backend) => {
  let saved: string | undefined;
  const cache: TuningCache = {
    load: () => Promise.resolve(saved),
    save: (text) => Promise.resolve(void (saved = text)),
  };
  const tiles: TileName[] = ["32x32x8", "64x64x16"];
  const first = new Tuner(backend, { cache, tiles, seconds: 60 });
  await first.prepare(product());
  assertEquals(first.results.length, 1);
  const { chosen, micros, wrong } = first.results[0];
  assertEquals(wrong, []);
  assert(tiles.every((name) => micros[name]! > 0 && micros[name]! >= micros[chosen]!));
  const shape = { m: 70, n: 50, k: 90, transA: false, transB: true };
  assertEquals(first.choose(shape, backend.limits).tile, TILES[chosen]);

  const second = new Tuner(backend, { cache, tiles });
  await second.prepare(product());
  assertEquals(second.results, [], "nothing is left to measure");
  assertEquals(second.choose(shape, backend.limits).tile, TILES[chosen]);

  saved = "{ damaged";
  const third = new Tuner(backend, { cache, tiles: ["32x32x8"], seconds: 60 });
  await third.prepare(product());
  assertEquals(third.results.length, 1, "a damaged cache is measured again");
});

onGpu(
  "the tuner stops when time is up, remembers nothing of what it did not finish, and keeps what other adapters have",
  async (backend) => {
    let saved = "";
    const cache: TuningCache = {
      load: () => Promise.resolve(saved || undefined),
      save: (text) => Promise.resolve(void (saved = text)),
    };
    const tiles: TileName[] = ["32x32x8", "64x64x16"];
    await new Tuner(backend, { cache, tiles: ["32x32x8"], seconds: 60 }).prepare(product());
    saved = saved.replace(backend.adapter.description, "another card");
    const hurried = new Tuner(backend, { cache, tiles, seconds: 1e-6 });
    await hurried.prepare(product());
    assertEquals(Object.keys(hurried.results[0].micros), ["32x32x8"]);
    await hurried.prepare(product());
    assertEquals(hurried.results.length, 1, "what is known serves this run");
    const adapters: Record<string, { tiles: object }> = JSON.parse(saved).adapters;
    const found = Object.entries(adapters).map(([name, { tiles }]) => [
      name.includes("another card"),
      Object.keys(tiles).length,
    ]);
    assertEquals(found.sort(), [[false, 0], [true, 1]]);
  },
);

onGpu("without room to compare there is the guess, and the backend is as it was", async (backend) => {
  const tuner = new Tuner(backend, { tiles: ["32x32x8"], seconds: 60 });
  const before = backend.memory;
  await tuner.prepare(product());
  assertEquals([tuner.results, backend.memory], [[], before]);
  const shape = { m: 70, n: 50, k: 90, transA: false, transB: true };
  assertEquals(tuner.choose(shape, backend.limits), chooseTile(shape, backend.limits));
}, { maximumBytes: 4096 });

onHalfGpu("in f16 the tuner times what is kept in halves as halves", async (backend) => {
  backend.limits = { ...backend.limits, fallback: false, lanes: 0, workgroupBytes: 9728 };
  const qkv = tensor("qkv", [60, 96], "input"), weight = tensor("weight", [96, 96], "param");
  const y = tensor("y", [60, 32], "output");
  const program = new Program("attention on halves");
  const before = program.activation("before", [60, 96]);
  emitCopy(program, qkv, before);
  const made = attention(program, linear(program, before, weight), { images: 2, tokens: 30, heads: 2, queries: 30 });
  emitCopy(program, linear(program, made, tensor("proj", [32, 32], "param")), y);
  const kernels = new Set<string>();
  const compile = backend.compileWith.bind(backend);
  backend.compileWith = async (program, options) => {
    const executable = await compile(program, options) as GpuExecutable;
    for (const { kernel } of executable.dispatches) kernels.add(kernel.name);
    return executable;
  };
  const tuner = new Tuner(backend, { tiles: ["32x32x8"], seconds: 60 });
  await tuner.prepare(program);
  assertEquals(tuner.results.map(({ shape }) => shape.halves), ["ac", "a"]);
  assertEquals(tuner.attention.map(({ shape }) => shape.half), [true]);
  assertEquals([...tuner.results, ...tuner.attention].flatMap(({ wrong }) => wrong as readonly string[]), []);
  assert([...kernels].every((name) => name.includes(" f16:")), [...kernels].join("\n"));
  assertEquals(
    tuner.attention[0].chosen,
    attentionChoiceName(tuner.chooseAttention(tuner.attention[0].shape, backend.limits)),
  );
});

onGpu("a tile that computes wrongly may not win", async (backend) => {
  const compile = backend.compileWith.bind(backend);
  backend.compileWith = (program, options) => {
    // As a driver's fault would: the product of another operand.
    const [op] = program.ops;
    const broken =
      options!.matmul!({ m: 8, n: 8, k: 8, transA: false, transB: true }, backend.limits).tile === TILES["64x64x16"];
    if (broken && op.kind === "matmul") program.ops[0] = { ...op, in: { ...op.in, a: op.in.b } };
    return compile(program, options);
  };
  const shape = { m: 40, n: 40, k: 40, transA: false, transB: true };
  const result = await compareTiles(new TuningOperands(backend), shape, ["64x64x16", "32x32x8"]);
  assertEquals(result.wrong, ["64x64x16"]);
  assertEquals(result.chosen, "32x32x8");
});

onGpu("every tile that fits is compared on request", async (backend) => {
  backend.limits = { ...backend.limits, workgroupBytes: 4096 }; // only the smallest tile fits
  const { chosen, micros } = await backend.compareTiles({ m: 33, n: 34, k: 35, transA: true, transB: false });
  assertEquals(chosen, "32x32x8");
  assertEquals(Object.keys(micros), ["32x32x8"]);
});

onGpu("tiles change the speed of a product and none of its bits", async (backend) => {
  backend.write(a, randomValues(70 * 90, 1));
  backend.write(b, randomValues(50 * 90, 2));
  const results = [];
  for (const name of ["32x32x8", "64x64x16", "64x64x16r8"] as const) {
    const executable = await backend.compileWith(product(), { matmul: () => ({ tile: TILES[name], splits: 2 }) });
    await executable.run();
    results.push(await backend.read(c));
  }
  for (const result of results) assertEquals(result, results[0]);
});
