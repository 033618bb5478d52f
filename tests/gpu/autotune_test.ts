// The tuner on whatever adapter there is, with tiles forced: what it chooses, checks, remembers, and that bits never change.
import { compareTiles, Tuner, type TuningCache } from "../../gpu/autotune.ts";
import { type TileName, TILES } from "../../gpu/kernels/matmul_tiles.ts";
import { matmul } from "../../models/graph/ops/matmul.ts";
import { Program } from "../../models/graph/program.ts";
import { tensor } from "../../models/graph/tensor.ts";
import { assert, assertEquals } from "../assert.ts";
import { randomValues } from "./compare.ts";
import { onGpu } from "./open.ts";

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

onGpu("a tile that computes wrongly may not win", async (backend) => {
  const compile = backend.compileWith.bind(backend);
  backend.compileWith = (program, choose) => {
    // As a driver's fault would: the product of another operand.
    const [op] = program.ops;
    const broken =
      choose!({ m: 8, n: 8, k: 8, transA: false, transB: true }, backend.limits).tile === TILES["64x64x16"];
    if (broken && op.kind === "matmul") program.ops[0] = { ...op, in: { ...op.in, a: op.in.b } };
    return compile(program, choose);
  };
  const shape = { m: 40, n: 40, k: 40, transA: false, transB: true };
  const result = await compareTiles(backend, shape, ["64x64x16", "32x32x8"]);
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
    const executable = await backend.compileWith(product(), () => ({ tile: TILES[name], splits: 2 }));
    await executable.run();
    results.push(await backend.read(c));
  }
  for (const result of results) assertEquals(result, results[0]);
});
