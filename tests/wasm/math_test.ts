// Error bounds that kernels/math.ts states, measured against float64.
import kernels from "../../wasm/kernels.b64" with { type: "text" };
import { gelu, geluDerivative } from "../../models/graph/ops/special.ts";
import { assert, assertEquals } from "../assert.ts";

const memory = new WebAssembly.Memory({ initial: 64, maximum: 65536, shared: true });
const module = new WebAssembly.Module(Uint8Array.fromBase64(kernels));
const { exports } = new WebAssembly.Instance(module, { env: { memory, now: () => 0 } });
const kernel = (name: string) => exports[name] as (...args: number[]) => void;

const TABLE = 1024, ONE = 2048, ZERO = 2052, X = 65536, D = 2 * X, Y = 3 * X;
kernel("fillConstants")(TABLE);
const floats = new Float32Array(memory.buffer);
floats[ONE / 4] = 1;

/** 9999 points of an interval: not a whole number of vectors. */
function points(from: number, to: number): Float32Array {
  const x = Float32Array.from({ length: 9999 }, (_, i) => from + (to - from) * i / 9998);
  floats.set(x, X / 4);
  return x;
}

/** Largest error of y against the truth, divided by what `scale` gives. */
function worst(x: Float32Array, truth: (x: number) => number, scale: (truth: number, x: number) => number): number {
  let error = 0;
  x.forEach((v, i) => {
    const t = truth(v), e = Math.abs(floats[Y / 4 + i] - t) / scale(t, v);
    error = Number.isNaN(e) ? Infinity : Math.max(error, e);
  });
  return error;
}

Deno.test("exp has a relative error below 2e-7 where its result is normal", () => {
  for (const [from, to] of [[-87, 88], [-1, 1]]) {
    const x = points(from, to);
    kernel("expRow")(X, Y, x.length, ONE, ZERO, TABLE);
    const error = worst(x, Math.exp, (t) => t);
    assert(error < 2e-7, `${from} … ${to}: ${error}`);
  }
});

Deno.test("exp of anything lower is next to nothing, and of NaN is NaN", () => {
  floats.set([-88, -1e30, -Infinity, NaN], X / 4);
  kernel("expRow")(X, Y, 4, ONE, ZERO, TABLE);
  for (let i = 0; i < 3; i++) assert(floats[Y / 4 + i] >= 0 && floats[Y / 4 + i] < 1.3e-38);
  assert(Number.isNaN(floats[Y / 4 + 3]));
});

/** Powers of two of one column of sixteen, by the softmax: the first row is 0 and the largest. */
function powers(x: Float32Array): Float32Array {
  const rows = x.length + 1, matrix = new Float32Array(16 * rows);
  x.forEach((v, i) => matrix[16 * (i + 1)] = v);
  floats.set(matrix, X / 4);
  kernel("softmaxColumns")(X, 64, rows, ONE, 32 * X, 33 * X, TABLE);
  return x.map((_, i) => floats[X / 4 + 16 * (i + 1)]);
}

Deno.test("2ˣ of the softmax has a relative error below 2.5e-7 where its result is normal, and is next to nothing below", () => {
  for (const from of [-126, -1]) {
    const x = Float32Array.from({ length: 9999 }, (_, i) => from * (1 - i / 9998));
    const errors = powers(x).map((y, i) => Math.abs(y / 2 ** x[i] - 1));
    assert(errors.every((e) => e < 2.5e-7), `${from} … 0: ${errors.reduce((a, b) => Math.max(a, b))}`);
  }
  const [low, lower, lowest, nothing] = powers(Float32Array.of(-127, -1e30, -Infinity, NaN));
  for (const y of [low, lower, lowest]) assert(y >= 0 && y < 1.3e-38, `${y}`);
  assert(Number.isNaN(nothing));
});

Deno.test("GELU has an absolute error below 3e-7·max(1, |x|), and is 0 far below 0", () => {
  const x = points(-12, 12);
  kernel("geluRow")(X, Y, x.length, TABLE);
  const error = worst(x, gelu, (_, v) => Math.max(1, Math.abs(v)));
  assert(error < 3e-7, `${error}`);
  floats.set([-6, -1e3, -1e30, NaN, 1e30], X / 4);
  kernel("geluRow")(X, Y, 5, TABLE);
  assertEquals([...floats.subarray(Y / 4, Y / 4 + 5)], [0, 0, 0, NaN, Math.fround(1e30)]);
});

Deno.test("the derivative of GELU has an absolute error below 4e-7", () => {
  const x = points(-12, 12);
  floats.fill(1, D / 4, D / 4 + x.length);
  kernel("geluBackwardRow")(D, X, Y, x.length, TABLE);
  const error = worst(x, geluDerivative, () => 1);
  assert(error < 4e-7, `${error}`);
});
