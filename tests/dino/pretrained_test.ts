// A loaded network against the float64 reference: features of pixels, attention at an image's own proportions.

import { DecodeError } from "../../dino/data/decode.ts";
import { loadPretrained } from "../../dino/pretrained.ts";
import { centralRaster, normalizedPlanes } from "../../dino/eval/image_planes.ts";
import { IMAGENET_NORMALIZATION } from "../../models/graph/ops/augment.ts";
import { ReferenceBackend } from "../../models/graph/reference.ts";
import { raster } from "../../models/image/raster.ts";
import { bytesSource, encodeSafetensors } from "../../models/weights/safetensors.ts";
import { openWeights } from "../../models/weights/open.ts";
import { readVit } from "../../models/weights/vit_weights.ts";
import { uploadBackbone } from "../../dino/eval/backbone.ts";
import { ImageEncoder } from "../../dino/eval/encoder.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";
import { onEachBackend } from "../backends.ts";
import { forward, largestDifference, TOY, toyImages, toyTensors } from "../models/weights/toy_vit.ts";

function picture(height: number, width: number) {
  const pixels = Uint8Array.from(toyImages(1, height, width), (x) => 128 + 60 * x);
  return { pixels, height, width };
}

onEachBackend("pretrained: features and attention are those of the reference", async (backend) => {
  const file = await encodeSafetensors(toyTensors(TOY, "module.backbone."));
  const vit = await loadPretrained(file, { backend, config: { numHeads: 3 } });
  assertEquals([vit.config, vit.report.matched.length], [TOY, 30]);
  const weights = await readVit(await openWeights(bytesSource(file)), { config: { numHeads: 3 } });
  const images = [picture(37, 50), picture(32, 32), picture(64, 33)];
  const features = await vit.features(images);
  assertEquals(features.map(({ length }) => length), [48, 48, 48]);
  for (const [i, { pixels, height, width }] of images.entries()) {
    const planes = normalizedPlanes(centralRaster(raster(pixels, height, width), 32), IMAGENET_NORMALIZATION);
    const { tokens } = await forward(weights, planes, [1, 32, 32]);
    // Final-norm outputs are of the order of 1, summed over 48 in float32.
    assert(largestDifference(features[i], tokens.subarray(0, 48)) < 1e-4);
  }
  const { maps, heads, gridHeight, gridWidth } = await vit.attention(images[0]);
  assertEquals([heads, gridHeight, gridWidth, maps.length], [3, 4, 6, 72]);
  const mass = Array.from({ length: 3 }, (_, h) => maps.subarray(h * 24, (h + 1) * 24).reduce((a, b) => a + b, 0));
  assert(mass.every((m) => m > 0.5 && m < 1), `attention over patches sums to ${mass}`); // [CLS] itself has the rest
  assertEquals((await vit.attention(images[0], { shorterSide: 16 })).gridHeight, 2);
  await assertRejects(() => vit.attention(picture(7, 50)), RangeError, "smaller than a patch");
  vit.dispose();
});

onEachBackend("pretrained: calls that overlap get their own answers, and none comes after the end", async (backend) => {
  const file = await encodeSafetensors(toyTensors(TOY));
  const vit = await loadPretrained(file, { backend, config: { numHeads: 3 } });
  const images = Array.from({ length: 4 }, (_, i) => picture(32, 32 + 3 * i));
  const alone = [];
  for (const image of images) alone.push(await vit.features([image]));
  const [maps, ...together] = await Promise.all([
    vit.attention(images[1]),
    ...images.map((image) => vit.features([image])),
  ]);
  assertEquals(together, alone);
  assertEquals(maps, await vit.attention(images[1]));
  vit.dispose();
  await assertRejects(() => vit.features(images), Error, "disposed of");
});

Deno.test("pretrained: what is no image is refused by name", async () => {
  const backend = new ReferenceBackend();
  const vit = await loadPretrained(await encodeSafetensors(toyTensors(TOY)), { backend, config: { numHeads: 3 } });
  const refused = (image: unknown, kind: typeof DecodeError | typeof TypeError, message: string) =>
    assertRejects(() => vit.features([picture(32, 32), image as string]), kind, message);
  await refused("/nowhere/photo.jpg", DecodeError, "/nowhere/photo.jpg: no such file");
  await refused(new Uint8Array(3), DecodeError, "image 1: not a JPEG");
  await refused(null, TypeError, "image 1 is null");
  await refused({ ...picture(32, 32), pixels: new Float32Array(3072).fill(NaN) }, TypeError, "Uint8Array");
  await refused({ ...picture(32, 32), height: 31 }, RangeError, "RGB takes");
  await assertRejects(() => vit.features("photo.jpg" as never), TypeError, "a list of images");
  vit.dispose();
  await backend.close();
});

onEachBackend("encoder: registers take part, and are no patches", async (backend) => {
  const config = { ...TOY, registers: 3 };
  const file = await openWeights(bytesSource(await encodeSafetensors(toyTensors(config))));
  const read = await readVit(file, { config: { numHeads: 3 } });
  assertEquals(read.config, config);
  const [height, width, images] = [40, 24, 2], D = 48, patches = 15;
  const planes = toyImages(images, height, width);
  const truth = await forward(read, planes, [images, height, width]);
  const uploaded = uploadBackbone(backend, { weights: read.weights, backbone: config, path: "toy" });
  const encoder = new ImageEncoder(backend, uploaded.parameters, config);
  const { tokens, attention, features } = await encoder.encode(planes, images, height, width, {
    tokens: true,
    attentionOf: 2, // the second patch
    features: { lastBlocks: 1, patchAverage: "concatenated" },
  });
  const all = 1 + 3 + patches, kept = 1 + patches;
  assertEquals([tokens!.length, attention!.length, features!.length], [
    images * kept * D,
    images * 3 * kept,
    images * 2 * D,
  ]);
  for (let b = 0; b < images; b++) {
    const patchRows = truth.tokens.subarray((b * all + 4) * D, (b + 1) * all * D);
    const rows = tokens!.subarray(b * kept * D, (b + 1) * kept * D);
    // Outputs of a final norm, of the order of 1, in float32.
    assert(largestDifference(rows.subarray(0, D), truth.tokens.subarray(b * all * D, (b * all + 1) * D)) < 1e-4);
    assert(largestDifference(rows.subarray(D), patchRows) < 1e-4);
    const average = Float64Array.from({ length: D }, (_, d) => {
      let sum = 0;
      for (let i = 0; i < patches; i++) sum += patchRows[i * D + d];
      return sum / patches;
    });
    assert(largestDifference(features!.subarray((2 * b + 1) * D, (2 * b + 2) * D), average) < 1e-4);
    for (let h = 0; h < 3; h++) {
      const asked = truth.attention.subarray(((b * 3 + h) * all + 5) * all, ((b * 3 + h) * all + 6) * all);
      const ours = attention!.subarray((b * 3 + h) * kept, (b * 3 + h + 1) * kept);
      assert(largestDifference(ours, [asked[0], ...asked.subarray(4)]) < 1e-5);
    }
  }
  encoder.dispose();
  uploaded.dispose();
});
