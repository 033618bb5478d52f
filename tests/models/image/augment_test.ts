// The augmentation kernels against the reference, crop by crop, on images and crops of awkward sizes.
import { augment, augmentToLevels, pixelBuffer, pixelRoom } from "../../../models/graph/ops/augment.ts";
import { Program } from "../../../models/graph/program.ts";
import { ReferenceBackend } from "../../../models/graph/reference.ts";
import type { Backend } from "../../../models/graph/backend.ts";
import type { AdjustmentKind } from "../../../models/image/color.ts";
import { type CropParameters, CropPlanner, evaluationCrop, plainCrop } from "../../../models/image/crop.ts";
import { CounterRandom, STREAM } from "../../../models/rng.ts";
import { assertEquals, assertThrows } from "../../assert.ts";
import { onEachBackend } from "../../backends.ts";
import { assertWithin, checkAugmentCase } from "./check_case.ts";

// Every backend computes in integers where rounding shows, so all tolerances here are zero.
onEachBackend("stored outputs of Pillow are reproduced bit for bit", async (backend) => {
  await checkAugmentCase(backend, { levels: 0, normalized: 0 });
});

const IMAGE_SIZES = [[1, 1], [1, 9], [13, 1], [2, 3], [37, 53], [3, 200], [150, 111]];

/** A batch of images of noise, flat colour and gradients, with a gap before each. */
function makeBatch(random: CounterRandom) {
  const table = new Int32Array(IMAGE_SIZES.length * 3);
  let bytes = 4;
  IMAGE_SIZES.forEach(([height, width], i) => {
    table.set([bytes, height, width], 3 * i);
    bytes += Math.ceil((height * width * 3) / 4) * 4 + 4;
  });
  const pixels = new Uint8Array(bytes);
  IMAGE_SIZES.forEach(([height, width], i) => {
    const image = pixels.subarray(table[3 * i], table[3 * i] + height * width * 3);
    image.forEach((_, k) =>
      image[k] = i % 3 === 1 ? (k * 3) % 256 : i % 3 === 2 ? 40 + 80 * (k % 3) : random.integer(256)
    );
  });
  return { table, pixels };
}

/** A crop with everything drawn at random, limits of the factors included. */
function drawCrop(random: CounterRandom, index: number): CropParameters {
  const image = index % IMAGE_SIZES.length, [imageHeight, imageWidth] = IMAGE_SIZES[image];
  const height = 1 + random.integer(imageHeight), width = 1 + random.integer(imageWidth);
  const top = random.integer(imageHeight - height + 1), left = random.integer(imageWidth - width + 1);
  const crop = plainCrop(image, { top, left, height, width }, random.chance(0.3) ? "bilinear" : "bicubic");
  crop.flip = random.chance(0.5);
  const kinds: AdjustmentKind[] = ["brightness", "contrast", "saturation", "hue", "gray"];
  let contrast = false;
  for (let n = random.integer(6); n > 0; n--) {
    const kind = kinds[random.integer(5)];
    if (kind === "contrast" && contrast) continue;
    contrast ||= kind === "contrast";
    const factor = kind === "hue" ? random.uniform(-0.5, 0.5) : [0, 1, 2, random.uniform(0, 2)][random.integer(4)];
    crop.adjustments.push({ kind, factor });
  }
  crop.blurSigma = random.chance(0.5) ? random.uniform(0.1, random.chance(0.2) ? 9 : 2) : 0;
  crop.solarizeThreshold = random.chance(0.3) ? random.integer(257) : 256;
  return crop;
}

async function runCrops(backend: Backend, height: number, width: number, patchSize: number, seed: number) {
  const random = new CounterRandom(seed, STREAM.evaluation), { table, pixels } = makeBatch(random);
  const crops = Array.from({ length: 2 * IMAGE_SIZES.length }, (_, i) => drawCrop(random, i));
  const capacity = {
    count: crops.length,
    height,
    width,
    maxTaps: 2 * Math.ceil(2 * 200 / Math.min(height, width)) + 5,
  };
  const program = new Program("augment test");
  const input = pixelBuffer(pixels.length);
  const tensors = patchSize === 0
    ? augmentToLevels(program, input, capacity)
    : augment(program, input, capacity, patchSize, undefined, "output");
  const planner = new CropPlanner(capacity);
  const executable = await backend.compile(program);
  backend.write(input, pixels);
  const used = planner.plan(table, pixelRoom(input), crops);
  backend.write(tensors.table, planner.table);
  backend.write(tensors.taps, planner.taps.subarray(0, used));
  await executable.run();
  return await backend.read(tensors.crops);
}

const SIZES: [height: number, width: number, patch: number][] = [
  [1, 1, 1],
  [1, 5, 0],
  [33, 7, 0],
  [32, 32, 16],
  [37, 41, 8], // ragged edges are dropped from the patches
  [70, 96, 0],
];

for (const [height, width, patch] of SIZES) {
  onEachBackend(
    `random crops of ${height}×${width} in ${patch ? `patches of ${patch}` : "levels"} equal the reference`,
    async (backend) => {
      const got = await runCrops(backend, height, width, patch, height * width);
      const expected = await runCrops(new ReferenceBackend(), height, width, patch, height * width);
      assertWithin(got, expected, 0, `${height}×${width}`);
    },
    { backends: ["wasm", "webgpu"] },
  );
}

onEachBackend("the tables of a second run leave nothing of the first", async (backend) => {
  const capacity = { count: 1, height: 16, width: 16, maxTaps: 9 };
  const program = new Program("augment twice"), input = pixelBuffer(32 * 32 * 3);
  const { table, taps, crops } = augmentToLevels(program, input, capacity);
  const executable = await backend.compile(program), planner = new CropPlanner(capacity);
  const pixels = Uint8Array.from({ length: 32 * 32 * 3 }, (_, i) => (i * 7) % 256);
  backend.write(input, pixels);
  const run = async (crop: CropParameters) => {
    const used = planner.plan(Int32Array.of(0, 32, 32), pixelRoom(input), [crop]);
    backend.write(table, planner.table);
    backend.write(taps, planner.taps.subarray(0, used));
    await executable.run();
    return (await backend.read(crops)).slice();
  };
  const plain = plainCrop(0, { top: 3, left: 5, height: 20, width: 27 });
  const before = await run(plain);
  await run({
    ...plain,
    adjustments: [{ kind: "contrast", factor: 0.2 }, { kind: "gray", factor: 1 }],
    blurSigma: 2,
    solarizeThreshold: 10,
    flip: true,
  });
  assertEquals(await run(plain), before);
});

Deno.test("planning refuses crops that would read outside an image or overflow a table", () => {
  const planner = new CropPlanner({ count: 1, height: 8, width: 8, maxTaps: 9 });
  const images = Int32Array.of(0, 10, 12), room = 360, box = { top: 0, left: 0, height: 10, width: 12 };
  const plan = (crop: CropParameters) => planner.plan(images, room, [crop]);
  plan(plainCrop(0, box));
  assertThrows(() => plan(plainCrop(1, box)), RangeError, "crop of image 1, the batch has 1");
  assertThrows(() => plan(plainCrop(0, { ...box, top: 1 })), RangeError, "box 10×12 at (1, 0) leaves image 0 of 10×12");
  assertThrows(() => plan(plainCrop(0, { ...box, left: -1 })), RangeError, "leaves image");
  assertThrows(() => plan(plainCrop(0, { ...box, height: 0 })), RangeError, "box 0×12");
  assertThrows(() => plan(plainCrop(0, { ...box, width: NaN })), RangeError, "leaves image");
  assertThrows(() => planner.plan(images, 359, [plainCrop(0, box)]), RangeError, "leaves the 359 bytes");
  assertThrows(() => planner.plan(images, room, []), RangeError, "0 crops for a program of 1");
  const contrast = { kind: "contrast", factor: 1 } as const;
  assertThrows(() => plan({ ...plainCrop(0, box), adjustments: [contrast, contrast] }), RangeError, "one contrast");
  assertThrows(
    () => plan({ ...plainCrop(0, box), adjustments: [{ kind: "hue", factor: NaN }] }),
    RangeError,
    "hue factor NaN",
  );
  assertThrows(() => plan({ ...plainCrop(0, box), blurSigma: -1 }), RangeError, "blur sigma -1");
  assertThrows(
    () => planner.plan(Int32Array.of(0, 100, 100), 30000, [plainCrop(0, { ...box, height: 100 })]),
    RangeError,
    "maxTaps",
  );
});

Deno.test("an evaluation crop takes the centre of the image at the wanted shorter side", () => {
  const crop = evaluationCrop(0, 240, 320, 65, 56);
  assertEquals([crop.height, crop.width, crop.resized], [240, 320, { height: 65, width: 86, top: 4, left: 15 }]);
  assertThrows(() => evaluationCrop(0, 240, 320, 48, 56), RangeError, "below the crop size 56");
});
