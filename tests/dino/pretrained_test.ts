// A loaded network against the float64 reference: features of pixels, attention at an image's own proportions.

import { loadPretrained } from "../../dino/pretrained.ts";
import { centralRaster, normalizedPlanes } from "../../dino/eval/image_planes.ts";
import { IMAGENET_NORMALIZATION } from "../../models/graph/ops/augment.ts";
import { raster } from "../../models/image/raster.ts";
import { bytesSource, encodeSafetensors } from "../../models/weights/safetensors.ts";
import { openWeights } from "../../models/weights/open.ts";
import { readVit } from "../../models/weights/vit_weights.ts";
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
