// `deno bench`: the cases of cli/bench.ts on the SIMD backend, at small sizes. For turbo mode start it with
// DENO_V8_FLAGS=--experimental-wasm-revectorize,--no-wasm-bounds-checks.

import type { BenchCase, BenchOptions } from "../../cli/bench/case.ts";
import { USUAL_SIZES } from "../../cli/bench/sizes.ts";
import { SUITES } from "../../cli/bench/suites.ts";
import { openWasm } from "../../wasm/mod.ts";

const options: BenchOptions = {
  backend: await openWasm(),
  ...USUAL_SIZES,
  batchSize: 1,
  localCropsNumber: 2,
  outDim: 1024,
};

// A suite frees a case when the next one is asked for, and `deno bench` runs them in the order they are registered:
// so one is alive at a time.
let current: { name: string; index: number; cases: AsyncGenerator<BenchCase>; made: BenchCase } | undefined;

async function caseAt(name: string, index: number): Promise<BenchCase> {
  if (current?.name !== name || current.index > index) {
    await current?.cases.return(undefined);
    const cases = SUITES[name](options);
    current = { name, index: 0, cases, made: (await cases.next()).value };
  }
  for (; current.index < index; current.index++) current.made = (await current.cases.next()).value;
  return current.made;
}

for (const [name, suite] of Object.entries(SUITES)) {
  let index = 0;
  for await (const { shape, flops } of suite(options)) {
    const at = index++;
    Deno.bench({
      name: flops ? `${shape}, ${(flops / 1e9).toPrecision(3)} GFLOP` : shape,
      group: name,
      fn: async (b) => {
        const made = await caseAt(name, at);
        b.start();
        await made.run();
        await made.finish?.();
        b.end();
      },
    });
  }
}
