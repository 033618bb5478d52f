import { scoreLogits } from "../../../../dino/eval/classification.ts";
import { initialWeights, LinearProbe, probeLearningRate } from "../../../../dino/eval/linear/linear.ts";
import { readProbe, writeProbe } from "../../../../dino/eval/linear/checkpoint.ts";
import { flipAndCrop } from "../../../../dino/eval/probe_crops.ts";
import { CounterRandom, STREAM } from "../../../../models/rng.ts";
import { assert, assertAlmostEquals, assertEquals, assertRejects } from "../../../assert.ts";
import { onEachBackend } from "../../../backends.ts";
import { RoundingBackend } from "../../rounding_backend.ts";

const [DIM, CLASSES, BATCH] = [7, 3, 5];

function problem(count: number) {
  const random = new CounterRandom(4, STREAM.evaluation);
  const labels = Int32Array.from({ length: count }, (_, i) => i % CLASSES);
  const features = Float32Array.from({ length: count * DIM }, (_, i) => {
    const image = Math.floor(i / DIM);
    return random.normal() + (i % DIM === labels[image] ? 2 : 0);
  });
  return { features, labels };
}

/** SGD on softmax regression, in float64. */
function descend(features: Float32Array, labels: Int32Array, lr: number, epochs: number, decay: number) {
  const start = initialWeights(CLASSES, DIM, 0);
  const w = Float64Array.from(start.weight), b = Float64Array.from(start.bias);
  const mw = new Float64Array(w.length), mb = new Float64Array(b.length);
  let first = true;
  for (let epoch = 0; epoch < epochs; epoch++) {
    const rate = probeLearningRate(lr, epoch, epochs);
    for (let at = 0; at < labels.length; at += BATCH) {
      const rows = Math.min(BATCH, labels.length - at);
      const gw = w.map((v) => decay * v), gb = b.map((v) => decay * v);
      for (let i = at; i < at + rows; i++) {
        const z = Array.from(
          b,
          (v, c) => v + w.subarray(c * DIM, (c + 1) * DIM).reduce((s, x, d) => s + x * features[i * DIM + d], 0),
        );
        const total = z.reduce((s, v) => s + Math.exp(v), 0);
        for (let c = 0; c < CLASSES; c++) {
          const d = (Math.exp(z[c]) / total - (c === labels[i] ? 1 : 0)) / rows;
          gb[c] += d;
          for (let k = 0; k < DIM; k++) gw[c * DIM + k] += d * features[i * DIM + k];
        }
      }
      for (const [p, m, g] of [[w, mw, gw], [b, mb, gb]]) {
        for (let i = 0; i < p.length; i++) p[i] -= rate * (m[i] = (first ? 0 : 0.9 * m[i]) + g[i]);
      }
      first = false;
    }
  }
  return { w, b };
}

onEachBackend("linear probe: short last batches and several rates equal float64 descent", async (backend) => {
  const { features, labels } = problem(13); // 5 + 5 + 3
  const learningRates = [0.5, 0.05, 0];
  const options = { dim: DIM, classes: CLASSES, batch: BATCH, epochs: 3, learningRates, weightDecay: 0.01 };
  const probe = await LinearProbe.create(backend, options);
  for (let epoch = 0; epoch < 3; epoch++) {
    for (let at = 0; at < 13; at += BATCH) {
      const end = Math.min(at + BATCH, 13);
      await probe.step(features.subarray(at * DIM, end * DIM), labels.subarray(at, end), epoch);
    }
  }
  const weights = await probe.weights();
  learningRates.forEach((lr, i) => {
    const { w, b } = descend(features, labels, lr, 3, 0.01);
    // nine float32 updates of values of size one
    w.forEach((v, k) => assertAlmostEquals(weights[i].weight[k], v, 5e-6));
    b.forEach((v, k) => assertAlmostEquals(weights[i].bias[k], v, 5e-6));
  });
  assertEquals(probe.steps, 9);
  await assertRejects(() => probe.step(features.subarray(0, DIM), [CLASSES], 0), RangeError, "label 3 of 3");
  await assertRejects(() => probe.step(undefined, new Int32Array(BATCH + 1), 0), RangeError, "6 labels");
  await assertRejects(() => LinearProbe.create(backend, { ...options, classes: 0 }), RangeError, "classes is 0");
  await probe.dispose();
}, { backends: ["wasm", "webgpu"] });

Deno.test("linear probe: a checkpoint goes on exactly, and only where it fits", async () => {
  const { features, labels } = problem(10);
  const options = { dim: DIM, classes: CLASSES, batch: BATCH, epochs: 2, learningRates: [0.5] };
  const run = async (probe: LinearProbe, epoch: number) => {
    for (const at of [0, BATCH]) {
      await probe.step(features.subarray(at * DIM, (at + BATCH) * DIM), labels.subarray(at, at + BATCH), epoch);
    }
  };
  const whole = await LinearProbe.create(new RoundingBackend(), options);
  await run(whole, 0);
  const folder = await Deno.makeTempDir();
  const path = `${folder}/probe.safetensors`;
  const state = { weights: await whole.weights(), momenta: await whole.momenta(), steps: whole.steps };
  await writeProbe(path, options, { ...state, epochs: 1, best: [50], fingerprint: "f" });
  await run(whole, 1);
  const found = (await readProbe(path, options, "f"))!;
  const second = await LinearProbe.create(new RoundingBackend(), options, 9);
  second.restore(found.weights, found.momenta, found.steps);
  await run(second, found.epochs);
  assertEquals(await second.weights(), await whole.weights());
  assertEquals(await readProbe(`${folder}/none.safetensors`, options, "f"), undefined);
  await assertRejects(() => readProbe(path, options, "g"), RangeError, "other weights");
  await assertRejects(() => readProbe(path, { ...options, epochs: 3 }, "f"), RangeError, "other weights");
  await Deno.remove(folder, { recursive: true });
});

Deno.test("scores of logits: ties go to the first class, top-5 needs five classes", () => {
  assertEquals(scoreLogits(Float32Array.of(1, 1, 0, 1, 1, 0), [0, 1], 3, 2).top1, 50);
  assertEquals(scoreLogits(Float32Array.of(1, 1, 0), [0], 3, 2).top5, undefined);
});

Deno.test("training crops of the probe depend on seed, epoch and image alone, and lie inside", () => {
  const draw = flipAndCrop(1, 2);
  const crop = draw(0, 30, 50, 7);
  draw(0, 30, 50, 8);
  assertEquals(flipAndCrop(1, 2)(0, 30, 50, 7), crop);
  assertEquals(crop.interpolation, "bilinear");
  assert(crop.top + crop.height <= 30 && crop.left + crop.width <= 50);
});
