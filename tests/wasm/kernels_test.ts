// The kernels: built from their sources, right in both of V8's modes, the same for any tile and number of threads.
import { buildKernels } from "../../wasm/build.ts";
import kernels from "../../wasm/kernels.b64" with { type: "text" };
import { openWasm } from "../../wasm/mod.ts";
import { TILE_SHAPES } from "../../wasm/micro_kernels.ts";
import { opCases } from "../models/graph/op_cases.ts";
import { assert, assertEquals } from "../assert.ts";
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

const noTurbo = Deno.build.arch !== "x86_64";
Deno.test({
  name: `V8 widens the hot kernels to 256 bits${noTurbo ? " (skipped: only on x86-64)" : ""}`,
  ignore: noTurbo,
  async fn() {
    const trace = await turboChild(`${TURBO_FLAGS},--trace-wasm-revectorize`, "op_case_runs.ts");
    // One line with a count of nodes for each function: the micro-kernels timed at start-up, at least.
    const widened = trace.split("\n").filter((line) => /Decided to vectorize, [1-9]/.test(line)).length;
    assert(widened >= TILE_SHAPES.length, `${widened} functions were vectorized`);
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
