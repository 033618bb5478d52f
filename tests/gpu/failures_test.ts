// What ends a run on a device, and the way back: a device that is lost, memory that lacks, buffers beyond the adapter's limit.
import { train } from "../../dino/train.ts";
import { openWebGpu } from "../../gpu/mod.ts";
import type { Backend } from "../../models/graph/backend.ts";
import { linear } from "../../models/graph/ops/matmul.ts";
import { emitCopy } from "../../models/graph/ops/elementwise.ts";
import { Program } from "../../models/graph/program.ts";
import { tensor } from "../../models/graph/tensor.ts";
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "../assert.ts";
import { toyConfig, toyPixels } from "../dino/toy_run.ts";
import { onGpu, withDevice } from "./open.ts";
import { WebGpuBackend } from "../../gpu/backend.ts";

withDevice("a run whose device is lost names its last checkpoint, from which it goes on", async (opened) => {
  const folder = await Deno.makeTempDir();
  try {
    const out = `${folder}/run`, data = toyPixels(), config = toyConfig({ nbKnn: [3] });
    const error = await assertRejects(() =>
      train(config, {
        backend: new WebGpuBackend(opened),
        data,
        out,
        onEvent: ({ type }) => type === "checkpoint" && opened.device.destroy(),
      }), Error);
    assertStringIncludes(error.message, "the device was lost");
    assertStringIncludes(error.message, `${out}/latest.safetensors of update 7: go on with --resume`);
    const backend = await openWebGpu({ allowFallback: true });
    const { reason, step } = await train(config, { backend, data, out, resume: true });
    assertEquals([reason, step], ["finished", 21]);
    await backend.close();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

withDevice("a run that does not fit says what would, and the device can be used on", async (opened) => {
  const backend = new WebGpuBackend(opened, { maximumBytes: 320_000 });
  const data = toyPixels();
  const run = (changes: object, on: Backend = backend) =>
    train(toyConfig({ nbKnn: [3], batchSize: 24, steps: 1, ...changes }), { backend: on, data });
  const error = await assertRejects(() => run({}), RangeError, "what fits: ");
  assertStringIncludes(error.message, "bytes more on the device");
  const [, parts, batch] = /--accumulate (\d+).*--batch-size (\d+)/.exec(error.message) ?? [];
  const chunk = Number(/--crop-chunk (\d+)/.exec(error.message)?.[1]);
  assert(Number(parts) > 1 && Number(batch) < 24 && chunk >= 1, error.message);
  assertEquals((await run({ accumulate: Number(parts) })).step, 1);
  await backend.close();
  for (const changes of [{ cropChunk: chunk }, { batchSize: Number(batch) }]) {
    const another = await openWebGpu({ allowFallback: true, maximumBytes: 320_000, tuning: false });
    assertEquals((await run(changes, another)).step, 1);
    await another.close();
  }
});

onGpu("a buffer beyond the adapter's limit is refused with bytes and a fix", (backend) => {
  const { maxBufferSize } = backend.device.limits;
  const t = tensor("bank", [maxBufferSize / 4 + 64], "input");
  const error = assertThrows(() => backend.write(t, new Float32Array(1)), RangeError, "buffers at most");
  assertStringIncludes(error.message, `${maxBufferSize}`);
  return Promise.resolve();
});

onGpu("what was compiled before a refusal still runs", async (backend) => {
  const weight = tensor("weight", [64, 64], "param"), y = tensor("y", [24, 64], "output");
  const x = tensor("x", [24, 64], "input");
  const product = (from = x, to = y) => {
    const p = new Program("product");
    emitCopy(p, linear(p, linear(p, from, weight), weight), to);
    return p;
  };
  const small = await backend.compile(product());
  backend.write(x, new Float32Array(24 * 64).fill(1));
  backend.write(weight, new Float32Array(64 * 64).fill(0.5));
  const before = backend.memory;
  const large = product(tensor("large", [4096, 64], "input"), tensor("large y", [4096, 64], "output"));
  assertEquals(await backend.holds([large]), false);
  await assertRejects(() => backend.compile(large), RangeError, "product needs");
  assertEquals(backend.memory, before);
  await small.run();
  assertEquals((await backend.read(y))[0], 64 * 0.5 * 64 * 0.5);
}, { maximumBytes: 1_000_000 });
