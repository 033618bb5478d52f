import { Finetuner } from "../../../../dino/eval/finetune/finetune.ts";
import { backboneBufferShapes, backboneShapes, layerOf } from "../../../../models/backbone.ts";
import { readFinetuned, writeFinetuned } from "../../../../dino/eval/finetune/checkpoint.ts";
import { loadWeights } from "../../../../dino/load_weights.ts";
import { pixelExtremes } from "../../../../dino/crop_feed.ts";
import type { Backend } from "../../../../models/graph/backend.ts";
import { plainCrop } from "../../../../models/image/crop.ts";
import { CounterRandom, STREAM } from "../../../../models/rng.ts";
import { resnetConfig } from "../../../../models/resnet.ts";
import { vitConfig, vitShapes } from "../../../../models/vit.ts";
import { assert, assertAlmostEquals, assertEquals, assertRejects } from "../../../assert.ts";
import { onEachBackend } from "../../../backends.ts";
import { toyPixels } from "../../toy_run.ts";

const CONFIG = vitConfig({ embedDim: 16, depth: 2, numHeads: 2, patchSize: 4, imageSize: 8, mlpRatio: 2 });
const BATCH = 6;

const options = {
  backbone: CONFIG,
  normalization: { mean: [0.4, 0.4, 0.4], deviation: [0.2, 0.2, 0.2] },
  classes: 3,
  cropSize: 8,
  batch: BATCH,
  steps: 40,
  warmup: 4,
  lr: 0.02,
  seed: 1,
};
const quiet = { mixup: 0, cutmix: 0, randAugment: 0, erasing: 0, labelSmoothing: 0, dropPath: 0, weightDecay: 0 };
const data = toyPixels(BATCH, 8);

function weights(name: string): Float32Array {
  const [, shape] = vitShapes(CONFIG).find(([each]) => each === name)!;
  const random = new CounterRandom(name.length, STREAM.initialization);
  const norm = /norm\d?\.weight$/.test(name);
  return Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => norm ? 1 : 0.1 * random.normal());
}

const create = (backend: Backend, changes = {}) =>
  Finetuner.create(backend, { ...options, ...changes }, pixelExtremes(data), weights);

async function update(tuner: Finetuner, images = BATCH) {
  const pixels = await data.readBatch([0, 1, 2, 3, 4, 5].map((i) => Math.min(i, images - 1)));
  const crops = Array.from({ length: BATCH }, (_, i) => plainCrop(i, { top: 0, left: 0, height: 8, width: 8 }));
  await tuner.update(pixels, crops, data.labels!.subarray(0, images));
}

onEachBackend("fine-tuning learns six images by heart, and a resumed run repeats the updates", async (backend) => {
  const tuner = await create(backend, quiet);
  await update(tuner);
  const first = await tuner.loss(BATCH);
  assertAlmostEquals(first, Math.log(3), 0.3); // a classifier of small random weights knows nothing
  for (let i = 0; i < 9; i++) await update(tuner, i === 3 ? 4 : BATCH); // one short batch
  const state = await tuner.state();
  for (let i = 0; i < 10; i++) await update(tuner);
  const last = await tuner.loss(BATCH);
  assert(last < 0.1 * first, `${last} after ${first}`);
  const whole = await tuner.state();
  tuner.restore(state);
  for (let i = 0; i < 10; i++) await update(tuner);
  assertEquals(await tuner.state(), whole);
  tuner.dispose();
}, { backends: ["wasm", "webgpu"] });

onEachBackend(
  "fine-tuning: layer decay leaves low layers nearly alone; mixing and depth keep it finite",
  async (backend) => {
    const tuner = await create(backend, {
      layerDecay: 0.01,
      weightDecay: 0,
      mixup: 0.5,
      labelSmoothing: 0.1,
      dropPath: 0.5,
      erasing: 1,
    });
    for (let i = 0; i < 3; i++) await update(tuner, 5); // mixed, cut, augmented and erased
    assert(Number.isFinite(await tuner.loss(5)));
    const state = await tuner.state(), { parameters } = state;
    for (let i = 0; i < 3; i++) await update(tuner);
    const after = await tuner.state();
    tuner.restore(state);
    for (let i = 0; i < 3; i++) await update(tuner);
    assertEquals(await tuner.state(), after);
    const moved = (name: string) => {
      const { offset, length } = tuner.parameters.segments.find((s) => s.name === name)!;
      const before = weights(name);
      let most = 0;
      for (let i = 0; i < length; i++) most = Math.max(most, Math.abs(parameters[offset + i] - before[i]));
      return most;
    };
    // AdamW moves every element by about its learning rate: a hundredth for each layer further down.
    const [low, high] = [moved("patch_embed.proj.weight"), moved("norm.weight")];
    assert(low > 0 && low < 1e-3 * high, `${low}, ${high}`);
    await assertRejects(() => create(backend, { layerDecay: 0 }), RangeError, "layerDecay 0");
    await assertRejects(() => create(backend, { labelSmoothing: 1 }), RangeError, "labelSmoothing 1");
    await assertRejects(() => create(backend, { averageDecay: 1 }), RangeError, "averageDecay 1");
    tuner.dispose();
  },
  { backends: ["wasm"] },
);

Deno.test("a fine-tuned file is weights for everybody, and goes on only as the same run", async () => {
  const { RoundingBackend } = await import("../../rounding_backend.ts");
  const tuner = await create(new RoundingBackend(), quiet);
  await update(tuner);
  const folder = await Deno.makeTempDir();
  const path = `${folder}/tuned.safetensors`;
  const layout = { segments: tuner.parameters.segments, buffers: tuner.buffers.segments };
  const state = await tuner.state();
  await writeFinetuned(path, layout, CONFIG, { state, epochs: 1, best: 40, fingerprint: "a" }, ["x", "y", "z"]);
  const found = (await readFinetuned(path, layout, "a"))!;
  assertEquals([found.state, found.epochs, found.best], [state, 1, 40]);
  const loaded = await loadWeights(path);
  assertEquals("numHeads" in loaded.backbone && loaded.backbone.numHeads, 2);
  await assertRejects(() => readFinetuned(path, layout, "b"), RangeError, "other weights");
  assertEquals(await readFinetuned(`${folder}/none`, layout, "a"), undefined);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("fine-tuning: batches that batch norms see are counted on from the file's, and travel with the run", async () => {
  const { RoundingBackend } = await import("../../rounding_backend.ts");
  const backbone = resnetConfig({ block: "basic", layers: [1], basePlanes: 2 });
  const before = new Map([["backbone.bn1.num_batches_tracked", 5]]);
  const backend = new RoundingBackend(), ones = (name: string) => new Float32Array(sizeOf.get(name)!).fill(1);
  const sizeOf = new Map([...backboneShapes(backbone), ...backboneBufferShapes(backbone)]
    .map(([name, shape]) => [name, shape.reduce((a, b) => a * b, 1)]));
  const tuner = await Finetuner.create(backend, { ...options, ...quiet, backbone }, pixelExtremes(data), ones, before);
  await update(tuner);
  await update(tuner);
  const path = await Deno.makeTempFile({ suffix: ".safetensors" });
  const layout = { segments: tuner.parameters.segments, buffers: tuner.buffers.segments };
  const state = await tuner.state();
  await writeFinetuned(path, layout, backbone, { state, epochs: 1, best: 0, fingerprint: "a" });
  assertEquals((await readFinetuned(path, layout, "a"))!.state, state);
  assertEquals(Object.fromEntries((await loadWeights(path)).batchCounts), {
    "backbone.bn1.num_batches_tracked": 7,
    "backbone.layer1.0.bn1.num_batches_tracked": 2,
    "backbone.layer1.0.bn2.num_batches_tracked": 2,
  });
  await Deno.remove(path);
});

onEachBackend("fine-tuning: where an average is kept it is the network; both travel in the file", async (backend) => {
  const tuner = await create(backend, { ...quiet, averageDecay: 0.75 });
  const start = (await tuner.state()).parameters;
  await update(tuner); // the rate of the first one is 0
  await update(tuner);
  const state = await tuner.state();
  state.average.forEach((v, i) => assertAlmostEquals(v, 0.75 * start[i] + 0.25 * state.parameters[i], 1e-6));
  assert(String(state.average) !== String(state.parameters));
  const folder = await Deno.makeTempDir();
  const path = `${folder}/tuned.safetensors`;
  const layout = { segments: tuner.parameters.segments, buffers: tuner.buffers.segments };
  await writeFinetuned(path, layout, CONFIG, { state, epochs: 1, best: 40, fingerprint: "a" });
  const found = (await readFinetuned(path, layout, "a"))!;
  assertEquals(found.state, state);
  const { offset, length } = layout.segments.find(({ name }) => name === "norm.bias")!;
  const loaded = (await loadWeights(path)).weights.get("backbone.norm.bias")!.data;
  assertEquals(loaded, state.average.subarray(offset, offset + length));
  await update(tuner);
  const after = await tuner.state();
  tuner.restore(found.state);
  await update(tuner);
  assertEquals(await tuner.state(), after);
  tuner.dispose();
  await Deno.remove(folder, { recursive: true });
}, { backends: ["wasm", "webgpu"] });

Deno.test("layers from the embeddings to the classifier", () => {
  const names = ["cls_token", "patch_embed.proj.bias", "blocks.0.norm1.bias", "blocks.11.mlp.fc2.weight", "norm.bias"];
  const network = { ...CONFIG, depth: 12 };
  assertEquals(names.map((name) => layerOf(network, name)), [0, 0, 1, 12, 13]);
  assertEquals(layerOf(network, "classifier.weight"), 13);
});
