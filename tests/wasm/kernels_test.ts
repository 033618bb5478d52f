// The kernels: built from their sources, right in both of V8's modes, the same for any tile and number of threads.
import binaryen from "npm:assemblyscript@0.28.20/binaryen";
import { buildKernels } from "../../wasm/build.ts";
import kernels from "../../wasm/kernels.b64" with { type: "text" };
import { openWasm } from "../../wasm/mod.ts";
import { TILE_SHAPES } from "../../wasm/micro_kernels.ts";
import { opCases } from "../models/graph/op_cases.ts";
import { assertEquals } from "../assert.ts";
import { digestOf, failuresOf, outputsOf } from "./op_case_runs.ts";

/** What the launcher gives the compute process. */
const TURBO_FLAGS = "--experimental-wasm-revectorize,--no-wasm-bounds-checks";

/** Threads and workers outlive the test that closes them by a moment. */
const quiet = { sanitizeOps: false, sanitizeResources: false };

Deno.test("kernels.b64 is what its sources compile to", async () => {
  assertEquals((await buildKernels()).toBase64(), kernels, "run deno run -A wasm/build.ts");
});

Deno.test({
  name: "kernels stay inside their buffers and right, with bounds checks, every tile",
  ...quiet,
  async fn() {
    for (const tile of TILE_SHAPES) assertEquals(await failuresOf({ threads: 2, tile }), [], JSON.stringify(tile));
  },
});

async function turboChild(flags: string, script: string): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", new URL(script, import.meta.url).href],
    env: { DENO_V8_FLAGS: flags },
  }).output();
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

Deno.test({
  name: "kernels without bounds checks stay inside their buffers, and give the same bits as with them",
  ...quiet,
  async fn() {
    const child = JSON.parse((await turboChild(TURBO_FLAGS, "op_case_runs.ts")).trim().split("\n").at(-1)!);
    assertEquals(child.failures, []);
    assertEquals(child.digest, await digestOf(2));
  },
});

/** Kernels in which nearly all time goes: inner loops of products and attention in every wide tile, exponentials, GELU. */
const HOT = [
  ...["tile", "rows", "cols"].flatMap((layout) =>
    TILE_SHAPES.filter((t) => t.columns === 16).map(({ rows, columns }) => `${layout}${rows}x${columns}`)
  ),
  ...["expRow", "geluRow", "geluBackwardRow", "geluKeepingRow", "softmaxColumns", "gradientColumns"],
  ...[
    "scaledRow",
    "scaledSumRow",
    "rowTotal",
    "rowDeviations",
    "normalizeRow",
    "parameterGradientsRow",
    "inputGradientRow",
    "addInputGradientRow",
  ],
  ...["adamwRow", "followRow"],
];

/** Numbers of the functions that V8's trace says to be widened, when it compiles one after the other. */
function widenedFunctions(trace: string): Set<string> {
  const widened = new Set<string>();
  let current = "";
  for (const line of trace.split("\n")) {
    const begin = line.match(/Begin revec function wasm-function#(\d+)/);
    if (begin) current = begin[1];
    else if (/Decided to vectorize, [1-9]\d* revectorizable nodes/.test(line)) widened.add(current);
  }
  return widened;
}

const noTurbo = Deno.build.arch !== "x86_64";
Deno.test({
  name: `V8 widens each of the hot kernels to 256 bits${noTurbo ? " (skipped: only on x86-64)" : ""}`,
  ignore: noTurbo,
  async fn() {
    // Everything at once by the optimising compiler, on one thread: nothing depends on what gets hot when.
    const whole = "--no-liftoff,--no-wasm-lazy-compilation,--wasm-num-compilation-tasks=1,--trace-wasm-revectorize";
    const trace = await turboChild(`${TURBO_FLAGS},${whole}`, "compile_kernels.ts");
    const widened = widenedFunctions(trace);
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 65536, shared: true });
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(Uint8Array.fromBase64(kernels)), {
      env: { memory, now: () => 0 },
    });
    // The name of an exported function is its number.
    assertEquals(HOT.filter((name) => !widened.has((exports[name] as CallableFunction).name)), []);
  },
});

/** How many multiply-adds an expression has, and how many of them are operands of another. */
function multiplyAdds(expression: string): { all: number; nested: number } {
  const open: boolean[] = [];
  let all = 0, nested = 0;
  for (const [token, head] of expression.matchAll(/\(\s*([\w.]+)?|\)/g)) {
    if (token === ")") open.pop();
    else {
      const one = head === "f32x4.relaxed_madd";
      if (one) {
        all++;
        if (open.includes(true)) nested++;
      }
      open.push(one);
    }
  }
  return { all, nested };
}

Deno.test("multiply-adds of the micro-kernels stay where they were written", () => {
  // Moved into one another they need more registers than there are, at a third of the speed; see wasm/build.ts.
  const module = binaryen.readBinary(Uint8Array.fromBase64(kernels));
  for (const { rows, columns } of TILE_SHAPES) {
    for (const layout of ["tile", "rows", "cols"]) {
      const name = `${layout}${rows}x${columns}`;
      const body =
        binaryen.getFunctionInfo(module.getFunction(binaryen.getExportInfo(module.getExport(name)).value)).body;
      const { all, nested } = multiplyAdds(binaryen.emitText(body));
      assertEquals([all, nested], [9 * rows * columns / 4, 0], name); // four steps before the loop, four in it, one behind
    }
  }
  module.dispose();
});

Deno.test({
  name: `a process that was not told its mode finds out${noTurbo ? " (skipped: only on x86-64)" : ""}`,
  ignore: noTurbo,
  async fn() {
    // Flags that change nothing stand for none.
    for (const [flags, mode] of [[TURBO_FLAGS, "turbo"], ["--wasm-bounds-checks", "stock"]]) {
      const told = await turboChild(flags, "tell_mode.ts");
      assertEquals(/ (turbo|stock) \(/.exec(told)?.[1], mode, told);
    }
  },
});

Deno.test({
  name: "results do not depend on threads or tile, to the last bit",
  ...quiet,
  async fn() {
    const cases = opCases();
    let first: Float64Array[][] | undefined;
    for (const [threads, tile] of [[1, 0], [2, 1], [3, 2], [2, 3]]) {
      const backend = await openWasm({ threads, tile: TILE_SHAPES[tile] });
      const results: Float64Array[][] = [];
      for (const test of cases) results.push(await outputsOf(backend, test));
      await backend.close();
      first ??= results;
      const different = cases.filter((_, i) =>
        results[i].some((values, j) => values.some((v, e) => !Object.is(v, first![i][j][e])))
      );
      assertEquals(different.map(({ name }) => name), [], `${threads} threads, tile ${tile}`);
    }
  },
});
