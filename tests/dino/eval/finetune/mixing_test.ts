import { makeCrops } from "../../../../dino/eval/finetune/crops.ts";
import { beta, drawMixing, mixedTargets } from "../../../../dino/eval/finetune/mixing.ts";
import { plainCrop } from "../../../../models/image/crop.ts";
import { CounterRandom, STREAM } from "../../../../models/rng.ts";
import { assert, assertAlmostEquals, assertEquals } from "../../../assert.ts";
import { toyPixels } from "../../toy_run.ts";

Deno.test("mixing: shares of Beta are symmetric, rectangles are what their share says, kinds take turns", () => {
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
  let boxes = 0;
  for (let step = 0; step < 400; step++) {
    const { own, box } = drawMixing({ mixup: 0.8, cutmix: 1 }, 32, 5, step);
    assert(own >= 0 && own <= 1);
    if (!box) continue;
    boxes++;
    assert(box.top >= 0 && box.top + box.height <= 32 && box.left >= 0 && box.left + box.width <= 32);
    assertAlmostEquals(own, 1 - box.height * box.width / 1024, 1e-12);
  }
  assertAlmostEquals(boxes / 400, 0.5, 0.125); // five standard errors
  assertEquals(drawMixing({ mixup: 0, cutmix: 0 }, 32, 5, 0), { own: 1 });
  assertEquals(drawMixing({ mixup: 0.8, cutmix: 0 }, 32, 5, 1).box, undefined);
  assert(drawMixing({ mixup: 0, cutmix: 1 }, 32, 5, 1).box);
  assertEquals(drawMixing({ mixup: 1, cutmix: 1 }, 32, 5, 9), drawMixing({ mixup: 1, cutmix: 1 }, 32, 5, 9));
});

Deno.test("mixed targets: each row adds up to 1, partners are counted from the other end, padding is 0", () => {
  const targets = mixedTargets([0, 2, 1], 4, 3, 0.75, 0.3);
  const [floor, rest] = [0.1, 0.7]; // of three classes; the rest goes by shares: 0 with 1, 2 with itself, 1 with 0
  const mixed = [floor + 0.75 * rest, floor + 0.25 * rest, floor];
  const expected = [...mixed, floor, floor, floor + rest, mixed[1], mixed[0], floor, 0, 0, 0];
  targets.forEach((value, i) => assertAlmostEquals(value, expected[i], 1e-6));
});

Deno.test("crops of fine-tuning: a rectangle of the partner, noise of its own, the same for the same step", async () => {
  const data = toyPixels(4, 8);
  const pixels = await data.readBatch([0, 1, 2, 3]);
  const crops = [0, 1, 2, 3].map((i) => plainCrop(i, { top: 0, left: 0, height: 8, width: 8 }));
  const options = {
    cropSize: 8,
    randAugment: 0,
    erasing: 0,
    cutmix: 1,
    normalization: { mean: [0.4, 0.4, 0.4], deviation: [0.2, 0.2, 0.2] },
    seed: 1,
  };
  const box = { top: 2, left: 1, height: 3, width: 5 };
  const mixed = makeCrops(options, pixels, crops, 3, 0, box).batch; // three images count, so 0 and 2 are partners
  const at = (batch: typeof pixels, i: number, y: number, x: number) =>
    batch.pixels[batch.table[3 * i] + 3 * (8 * y + x)];
  for (let y = 0; y < 8; y++) {
    for (let x = 0; x < 8; x++) {
      const inside = y >= 2 && y < 5 && x >= 1 && x < 6;
      for (let i = 0; i < 3; i++) assertEquals(at(mixed, i, y, x), at(pixels, inside ? 2 - i : i, y, x));
      assertEquals(at(mixed, 3, y, x), 0);
    }
  }
  const strong = { ...options, randAugment: 9, erasing: 1 };
  const once = makeCrops(strong, pixels, crops, 4, 7).batch;
  assertEquals(makeCrops(strong, pixels, crops, 4, 7).batch, once);
  assert(String(makeCrops(strong, pixels, crops, 4, 8).batch.pixels) !== String(once.pixels));
});
