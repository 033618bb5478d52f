// What Hugging Face folders say is done to images: parsed, refused where it makes no sense, and done.

import { loadPretrained } from "../../../dino/pretrained.ts";
import { preparedCrop } from "../../../dino/eval/features.ts";
import { normalizedPlanes, preparedRaster } from "../../../dino/eval/image_planes.ts";
import { IMAGENET_NORMALIZATION } from "../../../models/graph/ops/augment.ts";
import { ReferenceBackend } from "../../../models/graph/reference.ts";
import { raster } from "../../../models/image/raster.ts";
import { convertWeights } from "../../../models/weights/convert.ts";
import { openWeights } from "../../../models/weights/open.ts";
import { parsePreprocessing, resizedTo, squareOf } from "../../../models/weights/preprocessing.ts";
import { readVit } from "../../../models/weights/vit_weights.ts";
import { assert, assertEquals, assertRejects, assertThrows } from "../../assert.ts";
import { forward, largestDifference, TOY, toyFile, toyImages } from "./toy_vit.ts";

const parse = (json: Record<string, unknown>) => parsePreprocessing(json, "p.json");

Deno.test("preprocessing: of image processors and of the older extractors", () => {
  const dino = parse({ size: 224, do_resize: true, resample: 3, image_mean: [0.5, 0.5, 0.5], image_std: [1, 2, 3] });
  assertEquals(dino, {
    resize: { height: 224, width: 224 }, // the extractor of ViTs squashes
    cropSize: undefined,
    interpolation: "bicubic",
    normalization: { mean: [0.5, 0.5, 0.5], deviation: [1, 2, 3] },
  });
  assertEquals(squareOf(dino), 224);
  assertEquals(resizedTo(dino, 96).resize, { height: 96, width: 96 });
  const dinov2 = parse({ size: { shortest_edge: 256 }, crop_size: { height: 224, width: 224 }, do_center_crop: true });
  assertEquals([dinov2.resize, dinov2.cropSize, dinov2.interpolation], [{ shorterSide: 256 }, 224, "bilinear"]);
  assertEquals(dinov2.normalization, IMAGENET_NORMALIZATION);
  const larger = resizedTo(dinov2, 448);
  assertEquals([larger.resize, larger.cropSize], [{ shorterSide: 512 }, 448]);
  const none = parse({ do_resize: false, do_normalize: false, size: { height: 8, width: 8 } });
  assertEquals([none.resize, none.normalization.deviation, squareOf(none)], [undefined, [1, 1, 1], undefined]);
  assertEquals(resizedTo(none, 224).resize, { shorterSide: 256 });
});

Deno.test("preprocessing: what makes no sense, or is not done here, is refused by name", () => {
  const wrong: [Record<string, unknown>, string][] = [
    [{ size: "large" }, 'size "large"'],
    [{ size: { height: 0, width: 3 } }, "size"],
    [{ resample: 0 }, "resample 0"],
    [{ image_mean: [1, 2] }, "image_mean"],
    [{ image_std: [1, 0, 1] }, "image_std"],
    [{ rescale_factor: 1 }, "rescale_factor 1"],
    [{ crop_size: { height: 3, width: 4 } }, "crop_size"],
  ];
  for (const [json, message] of wrong) assertThrows(() => parse(json), SyntaxError, message);
});

Deno.test("preprocessing: the device's crop is that of the host", () => {
  for (const json of [{ size: 30 }, { size: { shortest_edge: 40 }, crop_size: 30 }]) {
    const prepared = parse(json);
    const { data: _, ...made } = preparedRaster(raster(new Uint8Array(50 * 41 * 3), 50, 41), prepared);
    assertEquals([made.height, made.width], [30, 30]);
    const crop = preparedCrop(prepared, 30)(0, 50, 41, 0);
    const { height, width } = crop.resized!;
    assertEquals([height, width], "crop_size" in json ? [48, 40] : [30, 30]);
    assertEquals(crop.interpolation, "bilinear");
  }
});

Deno.test("preprocessing: a folder's own is what a loaded network does to images, and is written along", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await convertWeights(await toyFile(), folder, { format: "huggingface" });
    const path = `${folder}/preprocessor_config.json`;
    const json = JSON.parse(await Deno.readTextFile(path));
    assertEquals(json.size, { height: 32, width: 32 });
    const own = { ...json, image_mean: [0.4, 0.5, 0.6], image_std: [0.3, 0.2, 0.1], resample: 2 };
    await Deno.writeTextFile(path, JSON.stringify(own));
    const backend = new ReferenceBackend();
    const network = await loadPretrained(folder, { backend });
    const pixels = Uint8Array.from(toyImages(1, 41, 50), (x) => 128 + 60 * x);
    const [features] = await network.features([{ pixels, height: 41, width: 50 }]);
    const planes = normalizedPlanes(preparedRaster(raster(pixels, 41, 50), parse(own)), {
      mean: own.image_mean,
      deviation: own.image_std,
    });
    const { tokens } = await forward(await readVit(await toyFile()), planes, [1, 32, 32]);
    assert(largestDifference(features, tokens.subarray(0, TOY.embedDim)) < 1e-5); // float64 on both sides, rounded once
    await Deno.writeTextFile(path, JSON.stringify({ ...own, resample: 0 }));
    await assertRejects(() => loadPretrained(folder, { backend }), SyntaxError, "preprocessor_config.json: resample 0");
    (await openWeights(folder)).close(); // tensors can be read all the same
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
