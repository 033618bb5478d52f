// The smaller parts of training: drop path, order, memory, weights under other prefixes, the collapse monitor.

import { DropPath } from "../../dino/drop_path.ts";
import { epochBatches } from "../../dino/epoch_batches.ts";
import { loadWeights } from "../../dino/load_weights.ts";
import { centerNorm, diagnose, featureSpread, meanEntropy, uniformEntropy } from "../../dino/monitor.ts";
import { estimateMemory, largestBatch, planRun } from "../../dino/run/plan.ts";
import { ReferenceBackend } from "../../models/graph/reference.ts";
import { droppedBranches } from "../../models/backbone.ts";
import { vitConfig, vitShapes } from "../../models/vit.ts";
import { encodeSafetensors, type TensorToWrite, writeSafetensors } from "../../models/weights/safetensors.ts";
import { VIT_KEY } from "../../models/weights/vit_weights.ts";
import { assert, assertAlmostEquals, assertEquals, assertRejects } from "../assert.ts";
import { toyConfig, toyPixels, trainToy } from "./toy_run.ts";

Deno.test("drop path: rates rise linearly, and kept branches make up for the skipped ones", () => {
  const network = (depth: number) => vitConfig({ embedDim: 8, depth, numHeads: 2, patchSize: 4 });
  assertEquals(droppedBranches(network(3), 0.2), { probabilities: [0, 0.1, 0.2], branches: 2 });
  assertEquals(droppedBranches(network(1), 0.2).probabilities, [0]);
  const groups = [{ firstView: 0, views: 2 }, { firstView: 2, views: 3 }];
  const images = 400, rate = 0.3;
  const dropPath = new DropPath([0, rate], 2, groups, images, 5);
  const backend = new ReferenceBackend();
  dropPath.write(backend, 7, 0);
  assertEquals(dropPath.factors(0, 0, 0), undefined);
  for (const [group, branch] of [[0, 0], [0, 1], [1, 0], [1, 1]] as const) {
    const factors = backend.at(dropPath.factors(group, 1, branch)!);
    assertEquals(factors.length, groups[group].views * images);
    const kept = factors.filter((f) => f !== 0);
    for (const f of kept) assertAlmostEquals(f, 1 / 0.7, 1e-6);
    // Four standard deviations of a mean of 800 to 1200 draws.
    assertAlmostEquals(kept.length / factors.length, 0.7, 4 * Math.sqrt(0.21 / factors.length));
  }
  const branches = [0, 1].map((branch) => backend.at(dropPath.factors(0, 1, branch)!).join());
  assert(branches[0] !== branches[1], "both branches of a block draw for themselves");
});

Deno.test("drop path: the parts of a batch draw what the whole batch draws", () => {
  const groups = [{ firstView: 0, views: 2 }];
  const whole = new DropPath([0, 0.5], 2, groups, 6, 5), part = new DropPath([0, 0.5], 2, groups, 2, 5);
  const backend = new ReferenceBackend();
  whole.write(backend, 3, 0);
  const all = [...backend.at(whole.factors(0, 1, 1)!)];
  for (const first of [0, 2, 4]) {
    part.write(backend, 3, first);
    const expected = [all[first], all[first + 1], all[6 + first], all[6 + first + 1]];
    assertEquals([...backend.at(part.factors(0, 1, 1)!)], expected);
  }
});

Deno.test("epoch batches: every image at most once, another order each epoch, parts that make up batches", () => {
  const batches = (epoch: number, batch: number, start: number, end: number) =>
    [...epochBatches(23, 1, epoch, { batch, start, end })].map((each) => [...each]);
  const first = batches(0, 4, 0, 5);
  assertEquals(new Set(first.flat()).size, 20);
  assert(first.join() !== batches(1, 4, 0, 5).join());
  assertEquals(batches(0, 4, 3, 5), first.slice(3));
  assertEquals(batches(0, 2, 0, 10).flat(), first.flat());
});

Deno.test("memory: parts of a batch take less, larger batches more, and the fitting one is found", () => {
  const plan = planRun(toyConfig({ batchSize: 8 }), toyPixels());
  const whole = estimateMemory(plan);
  const parts = estimateMemory({ ...plan, config: { ...plan.config, accumulate: 4 } });
  assert(parts.activations < whole.activations / 2);
  assertEquals([parts.parameters, parts.optimizer], [whole.parameters, whole.optimizer]);
  assertEquals(whole.optimizer, 2 * whole.gradients);
  assertEquals(whole.parameters, 2 * whole.gradients);
  const { total, parameters, gradients, optimizer, activations, other } = whole;
  assertEquals(total, parameters + gradients + optimizer + activations + other);
  assertEquals(largestBatch(plan, total), 8);
  assertEquals(largestBatch(plan, total - 1), 4);
  assertEquals(largestBatch(plan, 1000), 0);
});

Deno.test("weights: a published backbone is found under the usual prefixes, and its extents with it", async () => {
  const config = {
    imageSize: 12,
    patchSize: 4,
    inChannels: 3,
    embedDim: 128,
    depth: 2,
    numHeads: 2,
    mlpRatio: 1,
    qkvBias: true,
    layerNormEps: 1e-6,
  };
  const path = await Deno.makeTempFile();
  const write = async (prefix: string, shapes: [string, number[]][]) => {
    const tensors = shapes.map(([name, shape]) => ({
      name: prefix + name,
      dtype: "F32" as const,
      shape,
      bytes: () => new Uint8Array(4 * shape.reduce((a, b) => a * b, 1)),
    }));
    await Deno.writeFile(path, await encodeSafetensors(tensors));
  };
  try {
    for (const prefix of ["", "backbone.", "module.backbone.", "teacher.backbone.", "teacher.module.backbone."]) {
      await write(prefix, vitShapes(config));
      const { backbone, weights } = await loadWeights(path);
      assertEquals([backbone, weights.size], [config, 4 + 2 * 12 + 2], prefix);
      assert(weights.has("backbone.blocks.1.mlp.fc2.bias"));
    }
    await write("student.backbone.", vitShapes(config));
    await assertRejects(() => loadWeights(path, "teacher"), SyntaxError, "holds no teacher, only a student");
    await write("", vitShapes(config).filter(([name]) => name !== "pos_embed"));
    await assertRejects(() => loadWeights(path), SyntaxError, "pos_embed is missing");
    await assertRejects(() => loadWeights(`${path}.not`), RangeError, "no such file");
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("monitor: tells uniform from one-hot collapse, and neither from training", () => {
  const bound = uniformEntropy(4096);
  assertAlmostEquals(bound, 8.318, 1e-3);
  assertEquals(diagnose({ entropy: bound - 0.001, kl: 1e-5 }, 4096).kind, "uniform");
  assertEquals(diagnose({ entropy: 0.01, kl: 1e-6 }, 4096).kind, "one-hot");
  assertEquals(diagnose({ entropy: bound, kl: 0.3 }, 4096), { kind: "none", advice: "" });
  assertEquals(diagnose({ entropy: 4, kl: NaN }, 4096).kind, "none");
  assertAlmostEquals(meanEntropy([0.5, 0.5, 1, 0], 2), Math.LN2 / 2, 1e-12);
  assertEquals(centerNorm([3, 4]), 5);
  assertEquals(featureSpread(Float32Array.of(1, 0, 1, 0), 2), 0);
  assertAlmostEquals(featureSpread(Float32Array.of(1, 0, -1, 0, 0, 1, 0, -1), 2), 1, 1e-6);
});

Deno.test("weights: what a plain file cannot tell is given; a run does not begin with other heads than the file says", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const config = vitConfig({ embedDim: 8, depth: 2, numHeads: 4, patchSize: 4, imageSize: 8, mlpRatio: 2 });
    const tensors = vitShapes(config).map(([name, shape]): TensorToWrite => {
      const bytes = () => new Uint8Array(shape.reduce((a, b) => a * b, 4));
      return { name, dtype: "F32", shape, bytes };
    });
    const plain = `${folder}/plain.safetensors`, told = `${folder}/told.safetensors`;
    await writeSafetensors(plain, tensors);
    await writeSafetensors(told, tensors, { [VIT_KEY]: JSON.stringify(config) });
    const guessed = await loadWeights(plain);
    assertEquals(guessed.backbone, { ...config, numHeads: 1 });
    assert(guessed.notices.join().includes("1 are assumed"), guessed.notices.join());
    assertEquals((await loadWeights(plain, "teacher", { numHeads: 4 })).backbone, config);
    const run = (init: string, numHeads: number) => trainToy(toyConfig({ init, numHeads, knnEvery: 0, steps: 1 }), {});
    await run(plain, 2); // nothing says otherwise
    await run(told, 4);
    await assertRejects(() => run(told, 2), RangeError, "has 4 attention heads, not 2: use --num-heads 4");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
