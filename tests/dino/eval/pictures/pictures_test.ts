import { WindowSearch, withinWindow } from "../../../../dino/eval/video/affinity.ts";
import { attentionMaps, jaccard, massMasks } from "../../../../dino/eval/pictures/attention.ts";
import { measureFrame, summarizeSequence } from "../../../../dino/eval/video/davis.ts";
import { ImageEncoder } from "../../../../dino/eval/encoder.ts";
import { normalizeRows } from "../../../../dino/eval/knn/knn.ts";
import { labelsOfMask, OBJECT_PALETTE } from "../../../../dino/eval/pictures/object_masks.ts";
import { headsFigure, heatMap, overlayHeat, overlayMask } from "../../../../dino/eval/pictures/overlays.ts";
import { MaskPropagation, upsampleMask } from "../../../../dino/eval/video/video_segmentation.ts";
import { CounterRandom, STREAM } from "../../../../models/rng.ts";
import { tensor } from "../../../../models/graph/tensor.ts";
import { vitConfig, vitShapes } from "../../../../models/vit.ts";
import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "../../../assert.ts";
import { onEachBackend } from "../../../backends.ts";

const normals = (count: number, seed: number) => {
  const random = new CounterRandom(seed, STREAM.evaluation);
  return Float32Array.from({ length: count }, () => random.normal());
};

onEachBackend("windowed search: the best of each frame within reach, whatever radius, width and k", async (backend) => {
  for (const [gridHeight, gridWidth, dim, radius, k] of [[5, 7, 6, 2, 3], [1, 9, 64, 1, 5], [4, 3, 8, 0, 20]]) {
    const patches = gridHeight * gridWidth;
    const frames = [1, 2].map((seed) => normals(patches * dim, seed));
    const search = await WindowSearch.create(backend, { gridHeight, gridWidth, dim, radius, k, slots: 3 });
    frames.forEach((frame, slot) => search.store(slot, frame));
    const query = normals(patches * dim, 3);
    const q = normalizeRows(query, dim), sources = frames.map((frame) => normalizeRows(frame, dim));
    let visits = 0;
    await search.search(query, 2, (patch, slot, values, indices) => {
      const all = Array.from({ length: patches }, (_, s) => s).filter((s) => withinWindow(patch, s, gridWidth, radius))
        .map((s) => {
          let dot = 0;
          for (let d = 0; d < dim; d++) dot += q[patch * dim + d] * sources[slot][s * dim + d];
          return { s, dot };
        }).sort((a, b) => b.dot - a.dot);
      const wanted = Math.min(search.k, all.length);
      for (let i = 0; i < search.k; i++) {
        if (i >= wanted) assert(values[i] < -2, "nothing from outside the window");
        else {
          assertAlmostEquals(values[i], all[i].dot, 1e-5); // float32 products of unit rows
          assertEquals(indices[i], all[i].s);
        }
      }
      visits++;
    });
    assertEquals(visits, 2 * patches);
    search.dispose();
  }
});

onEachBackend(
  "mask propagation: a still picture keeps its masks, and context never holds the first frame twice",
  async (backend) => {
    const [gridHeight, gridWidth, dim] = [3, 4, 16];
    const frame = normals(gridHeight * gridWidth * dim, 4);
    const mask = Float32Array.from({ length: 2 * 12 }, (_, i) => (i % 12 < 5) === (i >= 12) ? 1 : 0);
    const options = { gridHeight, gridWidth, dim, classes: 2, lastFrames: 2, radius: 1, k: 1 };
    const propagation = await MaskPropagation.create(backend, options);
    await assertRejects(() => propagation.next(frame), TypeError, "start()");
    propagation.start(frame, mask);
    for (let t = 1; t < 5; t++) {
      const next = await propagation.next(frame);
      mask.forEach((v, i) => assertAlmostEquals(next[i], v, 1e-6));
    }
    await assertRejects(() => propagation.next(frame.subarray(1)), RangeError, "features");
    propagation.dispose();
  },
  { backends: ["reference", "wasm"] },
);

onEachBackend("attention of one query is the row of the full matrix, and its maps leave [CLS] out", async (backend) => {
  const config = vitConfig({ patchSize: 4, embedDim: 16, depth: 2, numHeads: 2, imageSize: 8, mlpRatio: 2 });
  const parameters = new Map(
    vitShapes(config).map(([name, shape], i) => {
      const t = tensor(name, shape, "param");
      const data = normals(shape.reduce((a, b) => a * b, 1), i).map((v) => 0.2 * v);
      backend.write(t, name.includes("norm") && name.endsWith("weight") ? data.map((v) => 1 + v) : data);
      return [name, t];
    }),
  );
  const encoder = new ImageEncoder(backend, (name) => parameters.get(name)!, config);
  const planes = normals(3 * 9 * 12, 99); // 2 × 3 patches, one row of pixels too many
  const of = async (attentionOf: number) => (await encoder.encode(planes, 1, 9, 12, { attentionOf })).attention!;
  const cls = await of(0), fourth = await of(4);
  for (const row of [cls, fourth]) {
    for (let h = 0; h < 2; h++) assertAlmostEquals(row.subarray(h * 7, (h + 1) * 7).reduce((a, b) => a + b), 1, 1e-6);
  }
  assert(cls.some((v, i) => Math.abs(v - fourth[i]) > 1e-3), "another query looks elsewhere");
  const maps = attentionMaps(cls, 2, 2, 3);
  assertEquals(maps.maps.subarray(0, 6), cls.subarray(1, 7));
  const both = await encoder.encode(planes, 1, 9, 12, {
    tokens: true,
    features: { lastBlocks: 2, patchAverage: "concatenated" },
  });
  assertEquals([both.gridHeight, both.gridWidth, both.tokens!.length, both.features!.length], [2, 3, 7 * 16, 48]);
  const mean = Float32Array.from(
    { length: 16 },
    (_, d) => [1, 2, 3, 4, 5, 6].reduce((s, t) => s + both.tokens![t * 16 + d] / 6, 0),
  );
  mean.forEach((v, d) => assertAlmostEquals(both.features![32 + d], v, 1e-5));
  await assertRejects(() => encoder.encode(planes, 1, 3, 108, {}), RangeError, "smaller than a patch");
  encoder.dispose();
});

Deno.test("mass masks: the strongest patch is always kept, everything at share 1, ties by place", () => {
  const maps = { heads: 1, gridHeight: 1, gridWidth: 4, maps: Float32Array.of(0.1, 0.6, 0.1, 0.2) };
  assertEquals([...massMasks(maps, 0.5)], [0, 1, 0, 0]);
  assertEquals([...massMasks(maps, 0.85)], [0, 1, 1, 1]);
  assertEquals([...massMasks(maps, 1)], [1, 1, 1, 1]);
  assertThrows(() => massMasks(maps, 0), RangeError, "share 0");
  assertThrows(() => attentionMaps(new Float32Array(5), 1, 2, 3), RangeError, "5 values");
  assertThrows(() => jaccard([1], [1, 0]), RangeError, "pixels");
});

Deno.test("DAVIS measures: the whole image, one pixel, and how a sequence decays", () => {
  const full = new Uint8Array(12).fill(1), none = new Uint8Array(12);
  const { J, F } = measureFrame(full, full, 3, 4);
  assertEquals([J, F], [1, 1]); // no boundary inside either
  assertEquals(measureFrame(full, none, 3, 4).J, 0);
  const corner = none.slice();
  corner[0] = 1;
  assertEquals(measureFrame(corner, corner, 3, 4), { J: 1, F: 1, precision: 1, recall: 1 });
  // Bins of nine frames share their ends: 0…2, 2…4, 4…6, 6…8.
  const falling = summarizeSequence([1, 1, 1, 0.8, 0.8, 0.8, 0.4, 0.4, 0.4]);
  assertAlmostEquals(falling.decay, 0.6, 1e-12);
  assertAlmostEquals(falling.recall, 6 / 9, 1e-12);
  assertThrows(() => measureFrame(full, none, 4, 4), RangeError, "4×4");
});

Deno.test("labels of masks: palette, grey numbers, black and white, and colours of nothing", () => {
  assertEquals([...OBJECT_PALETTE.subarray(0, 12)], [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]);
  const of = (
    ...colours: number[][]
  ) => [...labelsOfMask({ data: Uint8Array.from(colours.flat()), height: 1, width: colours.length }, "m.png")];
  assertEquals(of([0, 0, 0], [0, 128, 0], [64, 0, 0]), [0, 2, 8]);
  assertEquals(of([2, 2, 2], [0, 0, 0], [1, 1, 1]), [2, 0, 1]);
  assertEquals(of([255, 255, 255], [0, 0, 0]), [1, 0]);
  assertThrows(() => of([1, 2, 3]), RangeError, "m.png: colour #010203");
});

Deno.test("up-sampled masks: a label without any share stays out of the min-max stretch", () => {
  const up = upsampleMask(Float32Array.of(1, 0.5, 0, 0, 0.25, 0.25), 3, 1, 2, 2);
  assertEquals(up.length, 3 * 2 * 4);
  assertEquals([Math.max(...up.subarray(0, 8)), Math.min(...up.subarray(0, 8))], [1, 0]);
  assertEquals(up.subarray(8, 16), new Float32Array(8));
  assertEquals(up.subarray(16), new Float32Array(8).fill(0.25)); // the reference would divide 0 by 0 here
});

Deno.test("overlays keep what is outside the mask and need no head to look anywhere", () => {
  const image = { data: new Uint8Array(4 * 5 * 3).fill(100), height: 4, width: 5 };
  const mask = new Uint8Array(20);
  assertEquals(overlayMask(image, mask).data, image.data);
  mask[6] = 1;
  const changed = overlayMask(image, mask).data;
  assert(changed[18] !== 100 && changed[0] === 100);
  assert(headsFigure(image, new Float32Array(40), new Uint8Array(40), 2).data.every((v) => v === 55));
  // A scale of one's own: what exceeds it has the colour of its end, and dark places keep the image's colours.
  const map = Float32Array.from({ length: 20 }, (_, i) => i);
  const capped = heatMap(map, 4, 5, [0, 10]).data;
  assertEquals([...capped.subarray(3 * 19)], [...capped.subarray(3 * 10, 3 * 11)]);
  assert([...heatMap(map, 4, 5).data.subarray(3 * 10, 3 * 11)].join() !== [...capped.subarray(3 * 19)].join());
  assertEquals(overlayHeat(image, map, [0, 10]).data[0], 75);
});
