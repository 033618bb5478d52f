import { plainCrop } from "../../../models/image/crop.ts";
import { eraseRectangle } from "../../../models/image/erase.ts";
import { cropOnHost } from "../../../models/image/host_crop.ts";
import { applyRandAugment, RAND_AUGMENT_OPERATIONS, randAugment } from "../../../models/image/rand_augment.ts";
import { type Raster, raster } from "../../../models/image/raster.ts";
import { runImageSteps } from "../../../models/image/steps.ts";
import { CounterRandom, STREAM } from "../../../models/rng.ts";
import { assert, assertAlmostEquals, assertEquals, assertThrows } from "../../assert.ts";
import { onEachBackend } from "../../backends.ts";
import golden from "./rand_augment_pillow.json" with { type: "json" };

const { height, width, fill } = golden;
const bytes = (text: string): Uint8Array<ArrayBuffer> => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const picture = () => raster(bytes(golden.pixels), height, width);

Deno.test("RandAugment: every operation gives Pillow's levels", () => {
  const image = picture();
  for (const { operation, level, negative, pixels } of golden.cases) {
    const name = RAND_AUGMENT_OPERATIONS.find((each) => each === operation)!;
    assertEquals(applyRandAugment(image, name, level, negative, fill).data, bytes(pixels), `${operation} ${level}`);
  }
  assertEquals(new Set(golden.cases.map((c) => c.operation)).size, RAND_AUGMENT_OPERATIONS.length);
  assertEquals(image, picture(), "the image that is given stays as it is");
});

Deno.test("RandAugment: draws depend on the coordinates alone; a quarter of the images stays as it is", () => {
  const policy = { magnitude: 9, deviation: 0.5, layers: 2, fill };
  const draw = (i: number) => randAugment(picture(), new CounterRandom(4, STREAM.evaluation, 0, i, 1), policy).data;
  assertEquals(draw(3), draw(3));
  const same = Array.from({ length: 400 }, (_, i) => draw(i)).filter((d) => String(d) === String(picture().data));
  // Both operations are left out for one image in four; a standard error of 400 draws is 2.2 %.
  assertAlmostEquals(same.length / 400, 0.25, 0.09);
  assertEquals(randAugment(picture(), new CounterRandom(4, STREAM.evaluation), { ...policy, layers: 0 }), picture());
  for (const side of [1, 2]) { // smaller than any kernel
    const small = raster(new Uint8Array(3 * side * side).fill(9), side, side);
    for (const operation of RAND_AUGMENT_OPERATIONS) applyRandAugment(small, operation, 1, true, fill);
  }
});

Deno.test("random erasing: one rectangle of noise, 2 to 33 % of the area, the rest untouched", () => {
  const noise = { mean: [0.5, 0.5, 0.5], deviation: [0.2, 0.2, 0.2] };
  let sum = 0, count = 0;
  for (let i = 0; i < 60; i++) {
    const image: Raster = { data: new Uint8Array(3 * 40 * 30), height: 40, width: 30 };
    eraseRectangle(image, new CounterRandom(i, STREAM.evaluation), noise);
    const hit = Array.from({ length: 1200 }, (_, p) => p).filter((p) => image.data[3 * p] > 0);
    const rows = new Set(hit.map((p) => Math.floor(p / 30))), columns = new Set(hit.map((p) => p % 30));
    const area = rows.size * columns.size;
    assert(area >= 0.015 * 1200 && area <= 0.35 * 1200, `${area}`); // sides are rounded to whole pixels
    // Black noise (beyond two and a half deviations) does not show here: 0.6 % of the pixels.
    assert(hit.length >= 0.95 * area, `${hit.length} of ${area}`);
    for (const p of hit) sum += image.data[3 * p], count++;
  }
  assertAlmostEquals(sum / count / 255, 0.5, 0.02);
  const tiny = raster(new Uint8Array(3), 1, 1);
  eraseRectangle(tiny, new CounterRandom(1, STREAM.evaluation), noise); // no rectangle fits
  assertEquals(tiny.data, new Uint8Array(3));
});

onEachBackend("a crop on the host is the device's, level by level", async (backend) => {
  for (const flip of [false, true]) {
    const crop = { ...plainCrop(0, { top: 2, left: 3, height: 13, width: 11 }), flip };
    const { top, left, height: rows, width: columns } = crop;
    const expected = await runImageSteps(backend, picture(), [
      { op: "resized_crop", top, left, height: rows, width: columns, size: 9, interpolation: "bicubic" },
      ...flip ? [{ op: "hflip" } as const] : [],
    ]);
    assertEquals(cropOnHost(picture(), crop, 9, 9), expected);
    assertThrows(() => cropOnHost(picture(), { ...crop, left: 10 }, 9, 9), RangeError, "leaves its image");
    assertThrows(() => cropOnHost(picture(), { ...crop, blurSigma: 1 }, 9, 9), RangeError, "box, resize and flip");
  }
}, { backends: ["wasm", "webgpu"] });
