// Weights out and in again, through every format, and what is found, missing or refused on the way.

import { convertWeights, formatOfPath, WEIGHT_FORMATS } from "../../../models/weights/convert.ts";
import { findNetwork, readLinearClassifier } from "../../../models/weights/network.ts";
import { openWeights } from "../../../models/weights/open.ts";
import { encodeSafetensors, type TensorToWrite } from "../../../models/weights/safetensors.ts";
import { toFloat32 } from "../../../models/weights/tensor_file.ts";
import { readVit } from "../../../models/weights/vit_weights.ts";
import { vitConfig, vitShapes } from "../../../models/vit.ts";
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "../../assert.ts";
import { inFolder } from "../../in_folder.ts";
import { forward, largestDifference, TOY, toyFile, toyImages, toyTensors } from "./toy_vit.ts";

const PATHS = {
  safetensors: "a.safetensors",
  pytorch: "a.pth",
  huggingface: "folder",
  onnx: "a.onnx",
  npz: "a.npz",
} as const;

function zeros(name: string, shape: number[], dtype: "F32" | "I64" = "F32"): TensorToWrite {
  const bytes = shape.reduce((a, b) => a * b, dtype === "F32" ? 4 : 8);
  return { name, dtype, shape, bytes: () => new Uint8Array(bytes) };
}

Deno.test("convert: a ViT survives every format, bit for bit, with its architecture", async () => {
  await inFolder(async (folder) => {
    const file = await toyFile();
    const { weights } = await readVit(file);
    for (const [format, name] of Object.entries(PATHS)) {
      const path = `${folder}/${name}`;
      assertEquals(formatOfPath(path), format as keyof typeof PATHS);
      const { tensors, parameters } = await convertWeights(file, path, { format: format as keyof typeof PATHS });
      assertEquals([tensors, parameters], [
        30,
        vitShapes(TOY).reduce((sum, [, s]) => sum + s.reduce((a, b) => a * b), 0),
      ]);
      const again = await openWeights(path);
      // PyTorch and numpy files have no place for the number of heads.
      const said = format === "pytorch" || format === "npz" ? { numHeads: 3 } : {};
      const read = await readVit(again, { config: said });
      assertEquals(read.config, TOY, format);
      for (const [key, { shape, data }] of weights) {
        assertEquals([...read.weights.get(key)!.shape], [...shape]);
        assertEquals(read.weights.get(key)!.data, data, `${format} ${key}`);
      }
      again.close();
    }
  });
});

Deno.test("convert: half precision rounds to nearest, and other types are refused where a format has none", async () => {
  await inFolder(async (folder) => {
    const file = await toyFile();
    for (const [dtype, error] of [["float16", 2 ** -11], ["bfloat16", 2 ** -8]] as const) {
      for (const format of ["safetensors", "pytorch"] as const) {
        const path = `${folder}/${dtype}.${format}`;
        await convertWeights(file, path, { format, dtype });
        const half = await openWeights(path);
        for (const info of half.tensors.values()) {
          const was = toFloat32("F32", await file.read(file.tensors.get(info.name)!));
          const is = toFloat32(info.dtype, await half.read(info));
          // Half a unit in the last place, relative; the smallest halves are 2^-24 apart.
          assert(was.every((x, i) => Math.abs(x - is[i]) <= error * Math.abs(x) + 2 ** -25), `${dtype} ${info.name}`);
        }
        half.close();
      }
    }
    await assertRejects(
      () => convertWeights(file, `${folder}/x.onnx`, { format: "onnx", dtype: "float16" }),
      TypeError,
      "F32",
    );
    await assertRejects(
      () => convertWeights(file, `${folder}/x.npz`, { format: "npz", dtype: "bfloat16" }),
      TypeError,
      "npz",
    );
    await assertRejects(() => convertWeights(file, `${folder}/x.npy`, { format: "npy" }), TypeError, "30 tensors");
    await assertRejects(
      () => convertWeights(file, `${folder}/x.pth`, { format: "pytorch", head: true }),
      SyntaxError,
      "no projection head",
    );
    assertThrows(() => formatOfPath("weights.h5"), RangeError, ".h5");
    assertEquals(WEIGHT_FORMATS.length, 6);
  });
});

Deno.test("convert: a head goes along, optimizer states and the other network stay", async () => {
  await inFolder(async (folder) => {
    const extra = [
      zeros("teacher.module.head.mlp.0.weight", [5, 48]),
      zeros("teacher.module.head.last_layer.weight_g", [7, 1]),
      zeros("teacher.module.head.mlp.1.num_batches_tracked", [], "I64"),
      ...toyTensors(TOY, "student.module.backbone.", 8),
      zeros("optimizer.state.0.exp_avg", [1, 1, 48]),
    ];
    const file = await toyFile(TOY, "teacher.module.backbone.", extra);
    const path = `${folder}/full.pth`;
    await convertWeights(file, path, { format: "pytorch", head: true });
    const out = await openWeights(path);
    assert(out.tensors.has("teacher.head.last_layer.weight_g") && out.tensors.has("teacher.backbone.cls_token"));
    assertEquals(out.tensors.size, 32);
    const { weights, report } = await readVit(out, { config: { numHeads: 3 } });
    assertEquals([weights.size, report.matched.length, report.unexpected.length], [32, 30, 0]);
    out.close();
    const student = await readVit(file, { network: "student" });
    assert(
      largestDifference(student.weights.get("backbone.cls_token")!.data, weights.get("backbone.cls_token")!.data) > 0,
    );
    assertEquals(student.report.unexpected.length, 30 + 3 + 1);
    await convertWeights(file, `${folder}/all.safetensors`, { format: "safetensors", all: true });
    const all = await openWeights(`${folder}/all.safetensors`);
    assertEquals(all.tensors.size, file.tensors.size);
    assertEquals(all.tensors.get("teacher.module.head.mlp.1.num_batches_tracked")!.dtype, "I64");
    all.close();
    await assertRejects(
      () => convertWeights(file, `${folder}/hf`, { format: "huggingface", head: true }),
      TypeError,
      "--head",
    );
  });
});

Deno.test("weights: position embeddings resampled for another size give the same network at that size", async () => {
  const file = await toyFile();
  for (const size of [48, 24]) {
    const pixels = toyImages(1, size, size);
    const before = await forward(await readVit(file), pixels, [1, size, size]);
    const resized = await readVit(file, { imageSize: size });
    assertEquals(resized.config.imageSize, size);
    assertStringIncludes(resized.report.notices.at(-1)!, "resampled");
    const after = await forward(resized, pixels, [1, size, size]);
    // The embedding is rounded to float32 once more: a few 1e-7 of values near 1.
    assert(largestDifference(before.tokens, after.tokens) < 1e-5);
  }
  await assertRejects(() => readVit(file, { imageSize: 5 }), RangeError, "8 or more");
});

Deno.test("weights: names of timm's DINOv2, of classifiers and of wrappers", async () => {
  const gamma = (name: string, value: number): TensorToWrite => ({
    ...zeros(name, [48]),
    bytes: () => new Uint8Array(new Float32Array(48).fill(value).buffer),
  });
  const scaled = await toyFile(
    TOY,
    "model.",
    [0, 1].flatMap((i) => [gamma(`model.blocks.${i}.ls1.gamma`, 0.5), gamma(`model.blocks.${i}.ls2.gamma`, 2)]),
  );
  const plain = await toyFile();
  const { weights, report } = await readVit(scaled);
  assertEquals([report.missing.length, report.unexpected.length], [0, 0]);
  const was = (await readVit(plain)).weights;
  for (const [name, factor] of [["attn.proj.weight", 0.5], ["mlp.fc2.bias", 2]] as const) {
    const key = `backbone.blocks.1.${name}`;
    assertEquals([...weights.get(key)!.data], [...was.get(key)!.data].map((x) => x * factor));
  }
  const registers = await toyFile(TOY, "", [zeros("reg_token", [1, 4, 48])]);
  assertEquals((await readVit(registers)).config.registers, 4);
  await assertRejects(
    () => convertWeights(registers, "nowhere/", { format: "huggingface" }),
    TypeError,
    "4 register tokens",
  );
  const distilled = await toyFile(TOY, "", [zeros("dist_token", [1, 1, 48])]);
  await assertRejects(() => readVit(distilled), TypeError, "distillation token");
  const classifier = await toyFile(TOY, "", [zeros("head.weight", [10, 48]), zeros("fc_norm.bias", [48])]);
  assertEquals([...(await readVit(classifier)).report.unexpected].sort(), ["fc_norm.bias", "head.weight"]);
  const linear = await openWeights(
    await encodeSafetensors([
      zeros("state_dict.module.linear.weight", [10, 384]),
      zeros("state_dict.module.linear.bias", [10]),
    ]),
  );
  const { classes, features } = await readLinearClassifier(linear);
  assertEquals([classes, features], [10, 384]);
  await assertRejects(() => readLinearClassifier(plain), SyntaxError, "linear.weight");
  await assertRejects(() => readVit(linear), SyntaxError, "holds no network");
});

Deno.test("weights: what is missing or of another shape is told by name", async () => {
  const some = toyTensors(TOY).filter(({ name }) => name !== "blocks.1.norm2.bias");
  const missing = await openWeights(await encodeSafetensors(some));
  await assertRejects(() => readVit(missing), SyntaxError, "1 missing: backbone.blocks.1.norm2.bias");
  const odd = toyTensors(TOY).map((t) => t.name === "blocks.1.mlp.fc2.bias" ? zeros(t.name, [47]) : t);
  await assertRejects(
    async () => await readVit(await openWeights(await encodeSafetensors(odd)), { config: { numHeads: 3 } }),
    SyntaxError,
    "backbone.blocks.1.mlp.fc2.bias is [47], not [48]",
  );
  // Without a word on heads: one of 48, which is told.
  const { config, report } = await readVit(await openWeights(await encodeSafetensors(toyTensors(TOY))));
  assertEquals(config.numHeads, 1);
  assertStringIncludes(report.notices.join(), "1 are assumed");
  assertEquals(findNetwork(await toyFile(TOY, "module.backbone.")).prefix, "module.backbone.");
  assertEquals(vitConfig({ ...TOY }).numHeads, 3);
});

Deno.test("weights: shards beside an index are one file; an index cannot point elsewhere", async () => {
  await inFolder(async (folder) => {
    const tensors = toyTensors(TOY);
    const names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    await Deno.writeFile(`${folder}/${names[0]}`, await encodeSafetensors(tensors.slice(0, 11)));
    await Deno.writeFile(`${folder}/${names[1]}`, await encodeSafetensors(tensors.slice(11)));
    const index = (map: Record<string, string>) =>
      Deno.writeTextFile(`${folder}/model.safetensors.index.json`, JSON.stringify({ weight_map: map }));
    const map = Object.fromEntries(tensors.map(({ name }, i) => [name, names[i < 11 ? 0 : 1]]));
    await index(map);
    for (const path of [folder, `${folder}/model.safetensors.index.json`]) {
      const file = await openWeights(path);
      assertEquals((await readVit(file, { config: { numHeads: 3 } })).config, TOY);
      file.close();
    }
    for (const bad of ["../secret.safetensors", "/etc/passwd", ".hidden", "a/b.safetensors"]) {
      await index({ ...map, cls_token: bad });
      await assertRejects(() => openWeights(folder), SyntaxError, "not the name of a file beside it");
    }
    await index({ ...map, other: names[0] });
    await assertRejects(() => openWeights(folder), SyntaxError, '"other" is not in');
    await index({ ...map, cls_token: "gone.safetensors" });
    await assertRejects(() => openWeights(folder), RangeError, "gone.safetensors is not there");
    await Deno.remove(`${folder}/model.safetensors.index.json`);
    await assertRejects(() => openWeights(folder), RangeError, "has none of");
  });
});
