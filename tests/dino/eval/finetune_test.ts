import { beta, Finetuner } from "../../../dino/eval/finetune.ts";
import { layerOf } from "../../../models/backbone.ts";
import { readFinetuned, writeFinetuned } from "../../../dino/eval/finetune_checkpoint.ts";
import { loadWeights } from "../../../dino/load_weights.ts";
import { pixelExtremes } from "../../../dino/crop_feed.ts";
import type { Backend } from "../../../models/graph/backend.ts";
import { plainCrop } from "../../../models/image/crop.ts";
import { CounterRandom, STREAM } from "../../../models/rng.ts";
import { vitConfig, vitShapes } from "../../../models/vit.ts";
import { assert, assertAlmostEquals, assertEquals, assertRejects } from "../../assert.ts";
import { onEachBackend } from "../../backends.ts";
import { toyPixels } from "../toy_run.ts";

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
const quiet = { mixup: 0, labelSmoothing: 0, dropPath: 0, weightDecay: 0 };
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
    });
    for (let i = 0; i < 3; i++) await update(tuner, 5);
    assert(Number.isFinite(await tuner.loss(5)));
    const { parameters } = await tuner.state();
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
    tuner.dispose();
  },
  { backends: ["wasm"] },
);

Deno.test("a fine-tuned file is weights for everybody, and goes on only as the same run", async () => {
  const { RoundingBackend } = await import("../rounding_backend.ts");
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
  assertEquals(loaded.backbone.numHeads, 2);
  await assertRejects(() => readFinetuned(path, layout, "b"), RangeError, "other weights");
  assertEquals(await readFinetuned(`${folder}/none`, layout, "a"), undefined);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("layers from the embeddings to the classifier; shares of mixing are symmetric", () => {
  const names = ["cls_token", "patch_embed.proj.bias", "blocks.0.norm1.bias", "blocks.11.mlp.fc2.weight", "norm.bias"];
  const network = { ...CONFIG, depth: 12 };
  assertEquals(names.map((name) => layerOf(network, name)), [0, 0, 1, 12, 13]);
  assertEquals(layerOf(network, "classifier.weight"), 13);
  const random = new CounterRandom(1, STREAM.evaluation);
  let mean = 0, spread = 0;
  for (let i = 0; i < 4000; i++) {
    const share = beta(random, 0.8);
    assert(share >= 0 && share <= 1);
    mean += share / 4000;
    spread += (share - 0.5) ** 2 / 4000;
  }
  assertAlmostEquals(mean, 0.5, 0.025); // five standard errors of 4000 draws
  assertAlmostEquals(spread, 1 / (4 * (2 * 0.8 + 1)), 0.01); // the variance of Beta(0.8, 0.8)
});
