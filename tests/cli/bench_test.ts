// The benchmark command: rows of every kind it prints, on tiny sizes; its figures are not looked at.

import { assert, assertEquals } from "../assert.ts";

interface Row {
  readonly name: string;
  readonly shape: string;
  readonly median_ms?: number;
  readonly kernel_ms?: number;
  readonly bound?: string;
  readonly roofline_ratio?: number;
  readonly host_share?: number;
  readonly memory_mb?: number;
  readonly note?: string;
  readonly failed?: boolean;
}

async function bench(...words: string[]): Promise<Row[]> {
  const { code, rows } = await run(...words);
  assertEquals(code, 0);
  return rows;
}

async function run(...words: string[]): Promise<{ code: number; rows: Row[] }> {
  const output = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", "cli/bench.ts", ...words, "--quick", "--seconds", "0.01", "--json"],
    cwd: new URL("../..", import.meta.url),
    stderr: "null",
  }).output();
  return { code: output.code, rows: JSON.parse(new TextDecoder().decode(output.stdout)) };
}

Deno.test("bench: what there is no time for is told", async () => {
  const late = await bench("all", "--backend", "wasm", "--threads", "1", "--minutes", "0.0001");
  const left = late.filter(({ shape }) => shape === "left out");
  assert(left.length >= 9 && left.every(({ note }) => /minutes are over/.test(note!)), JSON.stringify(late));
});

Deno.test("bench: what cannot be measured is told and the rest is measured, with exit status 1", async () => {
  const { code, rows } = await run("all", "--backend", "wasm", "--threads", "1", "--crops", "2x8"); // less than a patch
  assertEquals(code, 1);
  const failed = rows.filter(({ failed }) => failed).map(({ name }) => name);
  assertEquals(failed, ["step", "optimizer", "forward", "augment"]);
  assert(rows.some(({ name, median_ms }) => name === "knn" && median_ms! > 0));
});

Deno.test("bench: kernels and a search as rows with the share of what bounds them", async () => {
  const rows = await bench("gemm", "norm", "loss", "knn", "--backend", "wasm", "--threads", "1");
  const names = [...new Set(rows.map(({ name }) => name))];
  assertEquals(names, ["gemm", "norm", "loss", "knn"]);
  for (const { name, shape, median_ms, bound, roofline_ratio } of rows) {
    assert(median_ms! > 0 && roofline_ratio! > 0, `${name} ${shape}`);
    if (name === "norm" || name === "loss") assertEquals(bound, "memory");
  }
});

Deno.test("bench: an update in the memory that --recompute leaves it", async () => {
  const megabytes: number[] = [];
  for (const recompute of ["never", "rows", "always"]) {
    const [{ name, note }] = await bench("step", "--recompute", recompute, "--backend", "wasm", "--threads", "1");
    assertEquals(name, "step");
    megabytes.push(Number(/(\d+) MB of activations/.exec(note!)![1]));
  }
  assert(megabytes[0] > megabytes[1] && megabytes[1] > megabytes[2], megabytes.join());
});

const adapter = await navigator.gpu?.requestAdapter();
Deno.test({
  name: `bench: everything on WebGPU, with the device's clock, memory and JavaScript's share${
    adapter ? "" : " (skipped: no adapter)"
  }`,
  ignore: !adapter,
  fn: async () => {
    const rows = await bench("all", "--backend", "webgpu");
    assertEquals([...new Set(rows.map(({ name }) => name))].slice(0, 13), [
      ...["device", "roofline", "step", "gemm", "attention", "norm", "loss", "optimizer", "prologues", "forward"],
      ...["augment", "knn"],
      "tuned",
    ]);
    assertEquals(rows.filter(({ shape }) => shape === "left out"), []);
    for (const { name, shape, kernel_ms, host_share, memory_mb, roofline_ratio } of rows) {
      if (["device", "roofline", "tuned", "knn", "decode"].includes(name)) continue;
      assert(host_share! > 0 && memory_mb! > 0, `${name} ${shape}`);
      assert(name === "augment" || roofline_ratio! > 0, `${name} ${shape}`);
      assert(kernel_ms === undefined || kernel_ms > 0);
    }
  },
});
