// The CPU backend itself: order of calls, memory and its limits, growing arenas, profiles, the end.
import { add } from "../../models/graph/ops/elementwise.ts";
import { linear, matmul } from "../../models/graph/ops/matmul.ts";
import { layerNorm } from "../../models/graph/ops/norm.ts";
import { Program } from "../../models/graph/program.ts";
import { ReferenceBackend } from "../../models/graph/reference.ts";
import { type Tensor, tensor } from "../../models/graph/tensor.ts";
import kernels from "../../wasm/kernels.b64" with { type: "text" };
import { Code, StepField } from "../../wasm/codes.ts";
import { writeSteps } from "../../wasm/compile.ts";
import { reserveMemory } from "../../wasm/memory.ts";
import { TILE_SHAPES } from "../../wasm/micro_kernels.ts";
import { openWasm, workspaceBytes } from "../../wasm/mod.ts";
import { WorkerPool } from "../../wasm/pool.ts";
import { assert, assertEquals, assertRejects, assertThrows } from "../assert.ts";
import { opCases } from "../models/graph/op_cases.ts";
import { outputsOf } from "./op_case_runs.ts";

function backendTest(name: string, fn: () => Promise<void>, ignore = false): void {
  // Worker threads outlive the test that closes them by a moment.
  Deno.test({ name, fn, ignore, sanitizeOps: false, sanitizeResources: false });
}

/** y = x + x, and the tensors of it. */
function doubling(n: number): { program: Program; x: Tensor; y: Tensor } {
  const x = tensor("x", [n], "input"), y = tensor("y", [n], "output");
  const program = new Program("doubling");
  program.emit({ kind: "add", in: { a: x, b: x }, out: { y }, attrs: {} });
  return { program, x, y };
}

backendTest("writes, runs and reads take effect in the order they are asked for", async () => {
  const backend = await openWasm({ threads: 2 });
  const { program, x, y } = doubling(100_000);
  const executable = await backend.compile(program);
  const results: Promise<unknown>[] = [];
  for (let i = 1; i <= 5; i++) {
    const data = new Float32Array(100_000).fill(i);
    backend.write(x, data);
    data.fill(-1); // the backend took a copy
    executable.run();
    results.push(backend.read(y).then((values) => assertEquals([values[0], values[99_999]], [2 * i, 2 * i])));
  }
  await Promise.all(results);
  backend.write(x, Float32Array.of(7), 3);
  await executable.run();
  assertEquals((await backend.read(y))[3], 14);
  await backend.close();
});

backendTest("a larger program moves the arena and leaves compiled programs right", async () => {
  const backend = await openWasm({ threads: 2 });
  const build = (m: number) => {
    const p = new Program(`chain${m}`);
    const x = tensor("x", [m, 64], "input"), w = tensor("w", [64, 64], "param"), y = tensor("y", [m, 64], "output");
    const g = tensor("g", [64], "param"), b = tensor("b", [64], "param");
    const h = layerNorm(p, linear(p, x, w, b, { gelu: true }), g, b, 1e-6);
    p.emit({ kind: "add", in: { a: h, b: x }, out: { y }, attrs: {} });
    return { p, x, w, g, y };
  };
  const results: number[] = [];
  const small = build(8), large = build(3000);
  for (const { x, w, g } of [small, large]) {
    backend.write(x, Float32Array.from({ length: x.shape[0] * 64 }, (_, i) => Math.sin(i)));
    backend.write(w, Float32Array.from({ length: 4096 }, (_, i) => Math.cos(i) / 8));
    backend.write(g, new Float32Array(64).fill(1));
  }
  const first = await backend.compile(small.p);
  await first.run();
  results.push((await backend.read(small.y))[77]);
  const arena = backend.memory.arena;
  const second = await backend.compile(large.p);
  assert(backend.memory.arena > arena);
  await second.run();
  await first.run();
  results.push((await backend.read(small.y))[77], (await backend.read(large.y))[77]);
  assertEquals(new Set(results).size, 1, `${results}`);
  await backend.close();
});

backendTest("asking for more memory than there is names bytes and what to do", async () => {
  const backend = await openWasm({ threads: 1, maximumBytes: 2 ** 26 });
  const p = new Program("too large");
  const x = tensor("x", [4096, 256], "input"), w = tensor("w", [8192, 256], "param");
  add(p, linear(p, x, w), linear(p, x, w));
  const error = await assertRejects(() => backend.compile(p), RangeError);
  assert(/program "too large" needs \d+ bytes.*smaller batch/.test(error.message), error.message);
  const { program, x: small, y } = doubling(4);
  const executable = await backend.compile(program);
  backend.write(small, Float32Array.of(1, 2, 3, 4));
  await executable.run();
  assertEquals([...await backend.read(y)], [2, 4, 6, 8]);
  await backend.close();
});

backendTest("buffers above 2 GiB work: addresses are unsigned", async () => {
  const backend = await openWasm({ threads: 2 });
  // Never touched beyond its first element, so it takes address space and no memory.
  const filler = tensor("filler", [2 ** 29 + 2 ** 26], "state");
  backend.write(filler, Float32Array.of(1));
  for (const test of opCases().filter((_, i) => i % 3 === 0)) {
    const got = await outputsOf(backend, test), truth = await outputsOf(new ReferenceBackend(), test);
    got.forEach((values, i) =>
      values.forEach((v, j) =>
        assert(Math.abs(v - truth[i][j]) <= 1e-3 * Math.max(1, Math.abs(truth[i][j])), test.name)
      )
    );
  }
  await backend.close();
});

backendTest("freed memory is used again, and comes back zeroed", async () => {
  const backend = await openWasm({ threads: 1 });
  const first = tensor("first", [1000], "state"), second = tensor("second", [900], "state");
  backend.write(first, new Float32Array(1000).fill(5));
  const before = backend.memory.persistent;
  backend.free(first);
  assert(backend.memory.persistent < before);
  assertEquals((await backend.read(second)).every((v) => v === 0), true);
  await backend.close();
});

backendTest("a profile has an entry for each operation", async () => {
  const backend = await openWasm({ threads: 2 });
  const p = new Program("product");
  const a = tensor("a", [200, 300], "input"), b = tensor("b", [300, 200], "input");
  matmul(p, matmul(p, a, b), a);
  const executable = await backend.compile(p);
  const times = await executable.profile!();
  assertEquals(times.length, 2);
  assert(times.every((t) => t >= 0 && t < 1e6), `${times}`);
  await backend.close();
});

backendTest("scratch is known without opening a backend", async () => {
  const p = new Program("product");
  const a = tensor("a", [100, 300], "input"), b = tensor("b", [300, 200], "input");
  matmul(p, a, b);
  const told = workspaceBytes(p, { threads: 2 });
  const backend = await openWasm({ threads: 2 });
  await backend.compile(p);
  assertEquals(backend.memory.workspace, told);
  await backend.close();
});

backendTest("wrong options and uses are refused", async () => {
  await assertRejects(() => openWasm({ threads: 0 }), RangeError, "threads 0");
  const backend = await openWasm({ threads: 1 });
  const { x } = doubling(4);
  assertThrows(() => backend.write(x, new Float32Array(5)), RangeError, "do not fit");
  await backend.close();
  await backend.close();
  await assertRejects(() => backend.finish(), Error, "closed");
});

const unchecked = Deno.env.get("DENO_V8_FLAGS")?.includes("no-wasm-bounds-checks") ?? false;
const trapTest = `a kernel that traps rejects its run and every later one${
  unchecked ? " (skipped: this process has no bounds checks)" : ""
}`;
backendTest(trapTest, async () => {
  const memory = reserveMemory(2 ** 26);
  const module = new WebAssembly.Module(Uint8Array.fromBase64(kernels));
  const pool = await WorkerPool.start(module, memory, 2, TILE_SHAPES[0]);
  const list = 65536, beyond = 2 ** 27;
  const words = new Uint32Array(memory.buffer, list, 2 * StepField.bytes / 4);
  writeSteps(words, [{ code: Code.copy, chunks: 2, args: [beyond, list, 128, 64], op: 0 }], 2);
  const context = { scratch: 2 ** 20, scratchBytes: 4096, times: 0 };
  await assertRejects(() => pool.run(list, 1, context), Error, "out of bounds");
  await assertRejects(() => pool.run(list, 1, context), Error, "out of bounds");
  await pool.close();
}, unchecked);
