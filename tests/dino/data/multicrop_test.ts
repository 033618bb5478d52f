// Multi-crop parameters: the distribution of torchvision's boxes, probabilities of every effect, and replay.
import { CropSampler, drawBox, MultiCropPlanner } from "../../../dino/data/multicrop.ts";
import type { MultiCropOptions } from "../../../dino/data/multicrop.ts";
import { type CropParameters, plainCrop } from "../../../models/image/crop.ts";
import { CounterRandom, STREAM } from "../../../models/rng.ts";
import { assert, assertEquals, assertThrows } from "../../assert.ts";
import { type CropStatistics, readAugmentCase } from "../../models/image/golden_case.ts";

const OPTIONS: MultiCropOptions = {
  globalCropSize: 224,
  localCropSize: 96,
  localCropsNumber: 8,
  globalCropsScale: [0.4, 1],
  localCropsScale: [0.05, 0.4],
  cropRatio: [3 / 4, 4 / 3],
  flipProb: 0.5,
  jitterProb: 0.8,
  brightness: 0.4,
  contrast: 0.4,
  saturation: 0.2,
  hue: 0.1,
  grayProb: 0.2,
  blurProbGlobal1: 1,
  blurProbGlobal2: 0.1,
  blurProbLocal: 0.5,
  blurSigma: [0.1, 2],
  scaleBlur: true,
  solarizeProb: 0.2,
  solarizeThreshold: 128,
};

const emptyBox = () => ({ top: 0, left: 0, height: 0, width: 0 });

/** Largest distance between two empirical distribution functions. */
function kolmogorovSmirnov(a: number[], b: number[]): number {
  a = a.toSorted((x, y) => x - y);
  b = b.toSorted((x, y) => x - y);
  let worst = 0, i = 0, j = 0;
  while (i < a.length && j < b.length) {
    const x = Math.min(a[i], b[j]);
    while (a[i] === x) i++;
    while (b[j] === x) j++;
    worst = Math.max(worst, Math.abs(i / a.length - j / b.length));
  }
  return worst;
}

const MEASURES: Record<string, (top: number, left: number, height: number, width: number, area: number) => number> = {
  area_fraction: (_t, _l, h, w, area) => h * w / area,
  log_aspect: (_t, _l, h, w) => Math.log(w / h),
  height: (_t, _l, h) => h,
  width: (_t, _l, _h, w) => w,
  top: (t) => t,
  left: (_t, l) => l,
};

for (const kind of ["global", "local"]) {
  Deno.test(`${kind} boxes are distributed as torchvision's`, async () => {
    const golden = await readAugmentCase();
    const { scale, ratio, image: [height, width], stats } = golden.expected[`rrc_${kind}`].value as CropStatistics;
    const theirs = golden.ints(`output.rrc_${kind}_draws`), n = theirs.length / 4;
    const random = new CounterRandom(0, STREAM.augmentation), box = emptyBox();
    const ours = Array.from({ length: n }, (_, i) => {
      const { top, left, height: h, width: w } = drawBox(random.restart(0, i), height, width, scale, ratio, box);
      assert(top >= 0 && left >= 0 && top + h <= height && left + w <= width);
      return [top, left, h, w];
    });
    for (const [name, measure] of Object.entries(MEASURES)) {
      const area = height * width;
      const mine = ours.map(([t, l, h, w]) => measure(t, l, h, w, area));
      const reference = Array.from({ length: n }, (_, i) => {
        const [t, l, h, w] = theirs.subarray(i * 4);
        return measure(t, l, h, w, area);
      });
      // 1.95·√(2/n): exceeded by chance once in a thousand seeds, and this seed is fixed.
      const distance = kolmogorovSmirnov(mine, reference);
      assert(distance < 1.95 * Math.sqrt(2 / n), `${name}: distance ${distance}`);
      if (!(name in stats)) continue;
      const mean = mine.reduce((a, b) => a + b) / n;
      assert(Math.abs(mean - stats[name].mean) < 4 * stats[name].std / Math.sqrt(n), `${name}: mean ${mean}`);
    }
  });
}

Deno.test("images too elongated for any box get torchvision's central one", async () => {
  const golden = await readAugmentCase();
  for (const { height, width, scale, ratio, box_top_left_height_width } of golden.expected.rrc_fallback.value) {
    const random = new CounterRandom(0, STREAM.augmentation);
    const { top, left, height: h, width: w } = drawBox(random, height, width, scale, ratio, emptyBox());
    assertEquals([top, left, h, w], box_top_left_height_width);
  }
});

Deno.test("boxes stay within images of a single row, column or pixel", () => {
  const random = new CounterRandom(0, STREAM.augmentation), box = emptyBox();
  for (const [height, width] of [[1, 1], [1, 2], [2, 1], [1, 500], [500, 1], [3, 2]]) {
    for (let i = 0; i < 200; i++) {
      drawBox(random, height, width, [0.05, 0.4], [3 / 4, 4 / 3], box);
      assert(box.height >= 1 && box.width >= 1 && box.top >= 0 && box.left >= 0);
      assert(box.top + box.height <= height && box.left + box.width <= width);
    }
  }
});

function drawViews(view: number, n: number, options = OPTIONS): CropParameters[] {
  const sampler = new CropSampler(options, 1);
  return Array.from({ length: n }, (_, image) => {
    const crop = plainCrop(0, emptyBox());
    sampler.draw(crop, 0, image, view, 240, 320);
    return crop;
  });
}

Deno.test("every effect occurs as often as its probability says, view by view", () => {
  const n = 4000;
  const rates = (crops: CropParameters[]) => ({
    flip: crops.filter((c) => c.flip).length / n,
    jitter: crops.filter((c) => c.adjustments.some((a) => a.kind === "hue")).length / n,
    gray: crops.filter((c) => c.adjustments.at(-1)?.kind === "gray").length / n,
    blur: crops.filter((c) => c.blurSigma > 0).length / n,
    solarize: crops.filter((c) => c.solarizeThreshold === 128).length / n,
  });
  const expected = [
    { flip: 0.5, jitter: 0.8, gray: 0.2, blur: 1, solarize: 0 },
    { flip: 0.5, jitter: 0.8, gray: 0.2, blur: 0.1, solarize: 0.2 },
    { flip: 0.5, jitter: 0.8, gray: 0.2, blur: 0.5, solarize: 0 },
  ];
  expected.forEach((probabilities, view) => {
    const measured = rates(drawViews(view, n));
    for (const [effect, p] of Object.entries(probabilities)) {
      const rate = measured[effect as keyof typeof measured];
      assert(Math.abs(rate - p) <= 5 * Math.sqrt(p * (1 - p) / n), `view ${view}: ${effect} ${rate}, not ${p}`);
    }
  });
});

Deno.test("jitter covers its ranges in all 24 orders, and blur scales with the crop", () => {
  const crops = drawViews(0, 4000).filter((c) => c.adjustments.length >= 4);
  const orders = new Map<string, number>();
  const ranges: Record<string, [number, number]> = {};
  for (const { adjustments } of crops) {
    const key = adjustments.slice(0, 4).map((a) => a.kind[0]).join("");
    orders.set(key, (orders.get(key) ?? 0) + 1);
    for (const { kind, factor } of adjustments) {
      const range = ranges[kind] ??= [Infinity, -Infinity];
      range[0] = Math.min(range[0], factor);
      range[1] = Math.max(range[1], factor);
    }
  }
  assertEquals(orders.size, 24);
  const limits = { brightness: [0.6, 1.4], contrast: [0.6, 1.4], saturation: [0.8, 1.2], hue: [-0.1, 0.1] };
  for (const [kind, [low, high]] of Object.entries(limits)) {
    const [least, most] = ranges[kind], slack = (high - low) / 100;
    assert(least >= low && least < low + slack && most <= high && most > high - slack, `${kind}: ${least} … ${most}`);
  }
  const small = drawViews(0, 500, { ...OPTIONS, globalCropSize: 32, localCropSize: 16 });
  assert(small.every((c) => c.blurSigma >= 0.1 * 32 / 224 && c.blurSigma <= 2 * 32 / 224));
});

Deno.test("a crop can be replayed from seed, epoch, image and view alone", () => {
  const batch = 3, images = Int32Array.from([0, 40, 50, 6000, 33, 64, 12336, 17, 19]);
  const planner = new MultiCropPlanner(OPTIONS, 7, batch, 64);
  planner.plan(images, [10, 4, 7], 2, 20000);
  const sampler = new CropSampler(OPTIONS, 7), replayed = plainCrop(1, emptyBox());
  sampler.draw(replayed, 2, 4, 5, 33, 64); // image 4 is the batch's number 1; view 5 is the fourth local crop
  const [globals, locals] = planner.groups;
  assertEquals(locals.crops[(5 - 2) * batch + 1], replayed);
  assertEquals([globals.crops.length, locals.crops.length], [6, 24]);
  const first = globals.planner.table.slice();
  planner.plan(images, [10, 4, 7], 3, 20000);
  assert(first.join() !== globals.planner.table.join());
  planner.plan(images, [10, 4, 7], 2, 20000);
  assertEquals(globals.planner.table, first);
});

Deno.test("a planner refuses what its tables or the pixels do not hold", () => {
  const planner = new MultiCropPlanner({ ...OPTIONS, localCropsNumber: 0 }, 7, 1, 300);
  assertEquals(planner.groups.length, 1);
  assertThrows(() => planner.plan(Int32Array.of(0, 40, 50), [1, 2], 0, 6000), RangeError, "2 images for a batch of 1");
  assertThrows(() => planner.plan(Int32Array.of(0, 40, 50), [1], 0, 5999), RangeError, "leaves the 5999 bytes");
  assertThrows(() => planner.plan(Int32Array.of(0, 4000, 4000), [1], 0, 1e8), RangeError, "raise maxTaps");
});
