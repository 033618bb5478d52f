import { fewLabelsLogistic, fewShotKnn } from "../../../../dino/eval/few_shot/few_shot.ts";
import { shareOfLabels, shotsOfEachClass } from "../../../../dino/eval/few_shot/label_subsets.ts";
import { minimize } from "../../../../dino/eval/few_shot/lbfgs.ts";
import { LogisticRegression } from "../../../../dino/eval/few_shot/logistic.ts";
import { CounterRandom, STREAM } from "../../../../models/rng.ts";
import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "../../../assert.ts";
import { onEachBackend } from "../../../backends.ts";

const [DIM, CLASSES] = [6, 3];

function blobs(count: number, seed: number) {
  const random = new CounterRandom(seed, STREAM.evaluation);
  const labels = Int32Array.from({ length: count }, (_, i) => i % CLASSES);
  const features = Float32Array.from(
    { length: count * DIM },
    (_, i) => random.normal() + (i % DIM === labels[Math.floor(i / DIM)] ? 3 : 0),
  );
  return { features, labels, dim: DIM };
}

Deno.test("L-BFGS finds the bottom of a bent valley and stops where it starts at one", async () => {
  const valley = (x: Float64Array) => {
    const [a, b] = x;
    const gradient = Float64Array.of(-2 * (1 - a) - 400 * a * (b - a * a), 200 * (b - a * a));
    return Promise.resolve({ value: (1 - a) ** 2 + 100 * (b - a * a) ** 2, gradient });
  };
  const found = await minimize(Float64Array.of(-1.2, 1), valley);
  found.x.forEach((v) => assertAlmostEquals(v, 1, 1e-4));
  assertEquals((await minimize(Float64Array.of(1, 1), valley)).iterations, 0);
});

onEachBackend(
  "logistic regression: the gradient vanishes at the fit, over more rows than a pass takes",
  async (backend) => {
    const penalty = 0.01, data = { ...blobs(1100, 1), classes: CLASSES };
    const model = await LogisticRegression.fit(backend, data, { penalty });
    const logits = await model.logits(data.features);
    const gradient = new Float64Array(CLASSES);
    for (let i = 0; i < 1100; i++) {
      const z = logits.subarray(i * CLASSES, (i + 1) * CLASSES);
      const total = z.reduce((s, v) => s + Math.exp(v), 0);
      for (let c = 0; c < CLASSES; c++) gradient[c] += (Math.exp(z[c]) / total - (c === data.labels[i] ? 1 : 0)) / 1100;
    }
    // The biases carry no penalty; the search ends at 1e-5 or where float32 sums of losses gain nothing more.
    gradient.forEach((g) => assertAlmostEquals(g, 0, 1e-3));
    const top1 = logits.filter((_, i) => i % CLASSES === data.labels[Math.floor(i / CLASSES)]);
    assertEquals(top1.length, 1100);
    await assertRejects(
      () => LogisticRegression.fit(backend, { ...data, labels: [] }, { penalty }),
      RangeError,
      "0 images",
    );
    model.dispose();
  },
  { backends: ["wasm", "webgpu"] },
);

onEachBackend("few labels: more of them help, and a draw depends on its number alone", async (backend) => {
  const train = blobs(60, 2), test = blobs(90, 3);
  const shots = (n: number, seed = 0) => fewShotKnn(train, test, { shots: n, draws: 3, seed });
  const one = await shots(1), ten = await shots(10);
  assertEquals([one.images, ten.images, one.draws.length], [3, 30, 3]);
  assert(ten.mean > one.mean, `${ten.mean} > ${one.mean}`);
  assertEquals((await shots(1)).draws, one.draws);
  const logistic = await fewLabelsLogistic(backend, train, test, {
    share: 0.5,
    draws: 1,
    seed: 0,
    penalties: [1e-3, 1],
  });
  assert(logistic.mean > 80 && logistic.images === 30, `${logistic.mean}`);
}, { backends: ["wasm"] });

Deno.test("subsets of labels: of every class, rounded, and never none", () => {
  const labels = [0, 0, 0, 0, 1, 1, 2];
  const counts = (places: Uint32Array) => [0, 1, 2].map((c) => places.filter((i) => labels[i] === c).length);
  assertEquals(counts(shotsOfEachClass(labels, 2, 0, 0)), [2, 2, 1]);
  assertEquals(counts(shareOfLabels(labels, 0.5, 0, 1)), [2, 1, 1]);
  assertEquals(counts(shareOfLabels(labels, 0.01, 0, 2)), [1, 1, 1]);
  assertThrows(() => shareOfLabels(labels, 0, 0, 0), RangeError, "share of 0");
});
