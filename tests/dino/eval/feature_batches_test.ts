// Features of images of many sizes in batches that do not divide them: the same as one image at a time.

import { KnnEvaluation } from "../../../dino/eval/knn/knn_eval.ts";
import { evaluationSplit } from "../../../dino/eval/knn/splits.ts";
import { FeatureExtractor } from "../../../dino/eval/features.ts";
import { openPixels } from "../../../dino/data/open.ts";
import type { Backend } from "../../../models/graph/backend.ts";
import { ReferenceBackend } from "../../../models/graph/reference.ts";
import { IMAGENET_NORMALIZATION } from "../../../models/graph/ops/augment.ts";
import { size, type Tensor, tensor } from "../../../models/graph/tensor.ts";
import { vitConfig, vitShapes } from "../../../models/vit.ts";
import { openWasm } from "../../../wasm/mod.ts";
import { assert, assertEquals } from "../../assert.ts";
import { onEachBackend } from "../../backends.ts";
import { png, withFiles } from "../data/make_images.ts";

const BACKBONE = vitConfig({ embedDim: 8, depth: 1, numHeads: 2, patchSize: 4, imageSize: 8, mlpRatio: 2 });
const OPTIONS = { backbone: BACKBONE, cropSize: 8, normalization: IMAGENET_NORMALIZATION };

/** Folders of classes, the largest image last, so that filling up with it would overflow. */
async function images(count: number): Promise<Record<string, Uint8Array>> {
  const files: Record<string, Uint8Array> = {};
  for (let i = 0; i < count; i++) {
    const side = i === count - 1 ? 60 : 9 + i;
    files[`${i % 2 === 0 ? "a" : "b"}/${i}.png`] = await png(side, side + 3, i);
  }
  return files;
}

function parametersOn(backend: Backend): (name: string) => Tensor {
  const made = new Map<string, Tensor>();
  for (const [name, shape] of vitShapes(BACKBONE)) {
    const t = tensor(name, shape, "param");
    backend.write(t, Float32Array.from({ length: size(t) }, (_, i) => Math.sin(i * 0.7 + name.length)));
    made.set(name, t);
  }
  return (name) => made.get(name)!;
}

Deno.test("features: batches that do not divide the images give what one at a time gives", async () =>
  await withFiles(await images(7), async (folder) => {
    const source = await openPixels(folder);
    const extracted = [];
    for (const batch of [1, 4, 7]) {
      const backend = new ReferenceBackend();
      const extractor = await FeatureExtractor.create(backend, parametersOn(backend), {
        ...OPTIONS,
        batch,
        sources: [source],
      });
      extracted.push(await extractor.extract(source));
    }
    assertEquals(extracted[1], extracted[0]);
    assertEquals(extracted[2], extracted[0]);
    source.close();
  }));

Deno.test({
  name: "features: passes are of fewer images where memory lacks, to the same features",
  sanitizeOps: false, // worker threads outlive the test that closes them by a moment
  sanitizeResources: false,
  fn: async () =>
    await withFiles(await images(7), async (folder) => {
      const source = await openPixels(folder);
      const backend = await openWasm({ threads: 1, maximumBytes: 2 ** 26 });
      try {
        const parameters = parametersOn(backend), options = { ...OPTIONS, batch: 64, sources: [source] };
        const plenty = await FeatureExtractor.create(backend, parameters, options);
        const wanted = await plenty.extract(source);
        plenty.dispose();
        backend.write(tensor("filler", [2 ** 24 - 150_000], "state"), Float32Array.of(1)); // 0.6 of 64 MiB are left
        const little = await FeatureExtractor.create(backend, parameters, options);
        assert(little.options.batch < 64, `${little.options.batch}`);
        assertEquals(await little.extract(source), wanted);
      } finally {
        await backend.close();
        source.close();
      }
    }),
});

onEachBackend(
  "features: calls that overlap get their own rows",
  async (backend) =>
    await withFiles(await images(7), async (folder) => {
      const source = await openPixels(folder);
      const extractor = await FeatureExtractor.create(backend, parametersOn(backend), {
        ...OPTIONS,
        batch: 3,
        sources: [source],
      });
      const sets = [[0, 1, 2, 3], [6, 5], [4, 2, 0, 6, 1]];
      const alone = [];
      for (const indices of sets) alone.push(await extractor.extract(source, indices));
      assertEquals(await Promise.all(sets.map((indices) => extractor.extract(source, indices))), alone);
      extractor.dispose();
      source.close();
    }),
);

Deno.test("k-NN: classifies where the held-out images outnumber the others, and are smaller", async () =>
  await withFiles(await images(3), async (few) =>
    await withFiles(await images(9), async (many) => {
      const [data, val] = [await openPixels(few), await openPixels(many)];
      const backend = new ReferenceBackend();
      const split = evaluationSplit(data, val, 0)!;
      const evaluation = new KnnEvaluation(backend, split, { ...OPTIONS, batch: 8, ks: [1], temperature: 0.07 });
      const networks = await evaluation.run(parametersOn(backend), "teacher");
      const pixels = await evaluation.runPixels();
      assertEquals([networks.accuracies[0].k, pixels.accuracies[0].k], [1, 1]);
      data.close();
      val.close();
    })));
