// What the host does while the device works: one submission an update, several under way, uploads in between, rare looks.
import { train } from "../../dino/train.ts";
import { linear } from "../../models/graph/ops/matmul.ts";
import { emitCopy } from "../../models/graph/ops/elementwise.ts";
import { Program } from "../../models/graph/program.ts";
import { size, tensor } from "../../models/graph/tensor.ts";
import { assert, assertEquals } from "../assert.ts";
import { toyConfig, toyPixels } from "../dino/toy_run.ts";
import { onGpu } from "./open.ts";

type Call = "submit" | "write" | "wait" | "read" | "group" | "pipeline";

/** Writes down what is asked of WebGPU while `run` runs. */
async function callsOf(run: () => Promise<unknown>): Promise<Call[]> {
  const calls: Call[] = [], restore: (() => void)[] = [];
  // deno-lint-ignore no-explicit-any
  const watch = (prototype: any, method: string, call: Call) => {
    const original = prototype[method];
    prototype[method] = function (...args: unknown[]) {
      calls.push(call);
      return original.apply(this, args);
    };
    restore.push(() => prototype[method] = original);
  };
  watch(GPUQueue.prototype, "submit", "submit");
  watch(GPUQueue.prototype, "writeBuffer", "write");
  watch(GPUQueue.prototype, "onSubmittedWorkDone", "wait");
  watch(GPUBuffer.prototype, "mapAsync", "read");
  watch(GPUDevice.prototype, "createBindGroup", "group");
  watch(GPUDevice.prototype, "createComputePipeline", "pipeline");
  try {
    await run();
  } finally {
    for (const undo of restore) undo();
  }
  return calls;
}

onGpu("an update is one submission; several are under way; scalars are read every few dozen", async (backend) => {
  const updates = 120;
  const config = toyConfig({ epochs: 1, batchSize: 2, knnEvery: 0, warmupEpochs: 0, logEvery: 60 });
  let begun = 0;
  const calls = await callsOf(async () => {
    const { step } = await train(config, {
      backend,
      data: toyPixels(2 * updates),
      onEvent: ({ type }) => {
        if (type === "start") begun = performance.now();
      },
    });
    assertEquals(step, updates);
  });
  assert(begun > 0);
  const count = (call: Call) => calls.filter((other) => other === call).length;
  const seconds = (performance.now() - begun) / 1000;
  // Those after the last pipeline was built are the run's.
  const rest = calls.slice(calls.lastIndexOf("pipeline") + 1), submissions = rest.filter((c) => c === "submit").length;
  const looks = count("read"), waits = count("wait");
  assert(submissions >= updates && submissions <= updates + looks + 10, `${submissions} submissions`);
  // A look each second or 64 updates and at the end; waits double in distance up to 64 updates or a second.
  assert(looks <= 2 + updates / 64 + 2 * seconds, `${looks} reads in ${updates} updates of ${seconds} s`);
  assert(waits <= 10 + 2 * seconds, `${waits} waits in ${updates} updates of ${seconds} s`);
  let ahead = 0, most = 0, writesBetween = 0;
  for (const call of rest) {
    if (call === "submit") most = Math.max(most, ++ahead);
    else if (call === "write" && ahead > 0) writesBetween++;
    else if (call === "wait" || call === "read") ahead = 0;
  }
  assert(most >= 8, `at most ${most} submissions were under way`);
  assert(writesBetween > updates, "pixels and scalars of updates are written while others are under way");
  // Bind groups are built once a dispatch, before the first update.
  const groups = rest.filter((call) => call === "group").length;
  assertEquals(rest.slice(rest.indexOf("submit", rest.lastIndexOf("group"))).includes("group"), false);
  assert(groups < 1000 && rest.lastIndexOf("group") < rest.length / 4, `${groups} bind groups`);
});

onGpu("the host writes and submits while the device computes", async (backend) => {
  const side = backend.adapter.fallback ? 256 : 4096,
    x = tensor("x", [side, side], "input"),
    y = tensor("y", [side, side], "output");
  const weight = tensor("weight", [side, side], "param"), next = tensor("next", [2 ** 20], "input");
  const p = new Program("long");
  let h = x;
  for (let i = 0; i < 24; i++) h = linear(p, h, weight);
  emitCopy(p, h, y);
  const executable = await backend.compile(p);
  for (const t of [x, weight]) backend.write(t, new Float32Array(size(t)).fill(1e-3));
  for (let i = 0; i < 2; i++) await executable.run(); // the pacer waits for the first
  await backend.finish();
  const pixels = new Float32Array(2 ** 20), start = performance.now();
  void executable.run();
  for (let i = 0; i < 3; i++) backend.write(next, pixels);
  const handed = performance.now() - start;
  await backend.finish();
  const done = performance.now() - start;
  // 0.8 GFLOP, or 3300 on a graphics card: a hundred milliseconds and more, of which the host takes some ten for 12 MB.
  assert(handed < done / 2, `the host was busy for ${handed} of ${done} ms`);
});
