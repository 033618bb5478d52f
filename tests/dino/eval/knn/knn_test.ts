// The k-NN vote against a plain restatement, on sizes and ties that go wrong easily.

import { deviceSearch } from "../../../../dino/eval/knn/device_neighbours.ts";
import { evaluateKnn, searchNeighbours } from "../../../../dino/eval/knn/knn.ts";
import { evaluationSplit, heldOutTenth } from "../../../../dino/eval/knn/splits.ts";
import { pixelsFromMemory } from "../../../../dino/data/memory.ts";
import { ReferenceBackend } from "../../../../models/graph/reference.ts";
import { CounterRandom, STREAM } from "../../../../models/rng.ts";
import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "../../../assert.ts";

function randomSet(count: number, dim: number, classes: number, key: number) {
  const random = new CounterRandom(3, STREAM.evaluation, key);
  const features = random.fillUniform(new Float32Array(count * dim), -1, 1);
  return { features, dim, labels: Int32Array.from({ length: count }, () => random.integer(classes)) };
}

Deno.test("k-NN: scores and accuracies equal a plain sort, for one to all neighbours", async () => {
  const [dim, classes] = [7, 4];
  const train = randomSet(37, dim, classes, 1), test = randomSet(11, dim, classes, 2);
  const ks = [1, 3, 20, 37];
  const { accuracies } = await evaluateKnn(train, test, { ks, temperature: 0.07 });
  const unit = (set: typeof train, i: number) => {
    const row = [...set.features.subarray(i * dim, (i + 1) * dim)];
    return row.map((x) => x / Math.hypot(...row));
  };
  for (const [n, k] of ks.entries()) {
    let [top1, top5] = [0, 0];
    for (let q = 0; q < 11; q++) {
      const votes = Array.from({ length: 37 }, (_, i) => {
        const similarity = unit(test, q).reduce((sum, x, d) => sum + x * unit(train, i)[d], 0);
        return { similarity, label: train.labels[i] };
      }).sort((a, b) => b.similarity - a.similarity).slice(0, k);
      const scores = Array(classes).fill(0);
      for (const { similarity, label } of votes) scores[label] += Math.exp(similarity / 0.07);
      const order = [...scores.keys()].filter((c) => scores[c] > 0).sort((a, b) => scores[b] - scores[a]);
      if (order[0] === test.labels[q]) top1++;
      if (order.slice(0, Math.min(5, k)).includes(test.labels[q])) top5++;
    }
    assertAlmostEquals(accuracies[n].top1, 100 * top1 / 11, 1e-9);
    assertAlmostEquals(accuracies[n].top5, 100 * top5 / 11, 1e-9);
  }
});

Deno.test("k-NN: a k above the set is lowered with a notice, and one class and one image will do", async () => {
  const one = { features: Float32Array.of(1, 2), dim: 2, labels: [0] };
  const { accuracies, notices } = await evaluateKnn(one, one, { ks: [5, 20] });
  assertEquals(accuracies, [{ k: 1, top1: 100, top5: 100, top5Stable: 100 }]);
  assertEquals(notices.length, 2);
  assert(notices[1].includes("k = 20 lowered to the 1"));
  const none = { features: new Float32Array(0), dim: 2, labels: [] };
  await assertRejects(() => evaluateKnn(one, none), RangeError, "test set has no images");
  await assertRejects(() => evaluateKnn(one, { ...one, dim: 1 }), RangeError, "cannot be compared");
});

Deno.test("k-NN: equal similarities are ordered by row, on the host and on a device", async () => {
  const database = Float32Array.of(0, 1, 1, 0, 1, 0, 0, 1, 1, 0); // rows 1, 2, 4 are alike
  const query = Float32Array.of(1, 0);
  const expected = [1, 2, 4, 0];
  assertEquals([...searchNeighbours(query, database, 2, 4).indices], expected);
  const backend = new ReferenceBackend();
  assertEquals([...(await deviceSearch(backend)(query, database, 2, 4)).indices], expected);
});

Deno.test("k-NN: a database of several blocks gives the same neighbours as one", async () => {
  const dim = 2, rows = 8192 + 5;
  const { features } = randomSet(rows, dim, 2, 3);
  const queries = features.slice(0, 3 * dim);
  const host = searchNeighbours(queries, features, dim, 9);
  const device = await deviceSearch(new ReferenceBackend())(queries, features, dim, 9);
  for (const [i, similarity] of host.similarities.entries()) {
    assertAlmostEquals(device.similarities[i], similarity, 1e-6); // float32 rounding of sums of two products
  }
  assertEquals(device.k, 9);
});

Deno.test("splits: a tenth is held out by seed, classes are matched by name", () => {
  const { kept, heldOut } = heldOutTenth(57, 1);
  assertEquals([heldOut.length, kept.length, new Set([...kept, ...heldOut]).size], [5, 52, 57]);
  assertEquals(heldOutTenth(57, 1), { kept, heldOut });
  assert(heldOutTenth(57, 2).heldOut.join() !== heldOut.join());
  assertEquals(heldOutTenth(2, 0).heldOut.length, 1);

  const source = (classNames: string[], ...labels: number[]) =>
    pixelsFromMemory({
      name: "s",
      height: 1,
      width: 1,
      channels: 1,
      data: new Uint8Array(labels.length),
      labels: Int32Array.from(labels),
      classNames,
    });
  const data = source(["cat", "dog"], 0, 1, 1);
  const split = evaluationSplit(data, source(["dog", "emu"], 0, 1), 0)!;
  assertEquals([...split.test.labels], [1, 2]);
  assertThrows(() => evaluationSplit(data, source(["x"], 0), 0), RangeError, "nothing in common");
  const unlabelled = pixelsFromMemory({ name: "u", height: 1, width: 1, channels: 1, data: new Uint8Array(4) });
  assertEquals(evaluationSplit(unlabelled, undefined, 0), undefined);
  assertEquals(evaluationSplit(unlabelled, data, 0)!.train.source, data);
});

Deno.test("k-NN: images to classify without labels are refused, not passed over", () => {
  const source = (name: string, labels?: Int32Array<ArrayBuffer>) =>
    pixelsFromMemory({ name, height: 1, width: 1, channels: 1, data: new Uint8Array(4), labels });
  const labelled = source("data", Int32Array.of(0, 1, 0, 1));
  assertThrows(() => evaluationSplit(labelled, source("plain"), 0), RangeError, "--val plain: has no labels");
  assertEquals(evaluationSplit(labelled, undefined, 0)?.test.indices.length, 1);
});
