// XCiTs in files: the release's names and timm's, written and read again, refused where something is missing.

import { convertWeights, formatOfPath } from "../../../models/weights/convert.ts";
import { describeLayout } from "../../../models/weights/published.ts";
import { readBackbone } from "../../../models/weights/backbone_weights.ts";
import { bytesSource, encodeSafetensors, type TensorToWrite } from "../../../models/weights/safetensors.ts";
import { openWeights } from "../../../models/weights/open.ts";
import type { TensorFile } from "../../../models/weights/tensor_file.ts";
import { XCIT_SIZES, xcitBufferShapes, type XcitConfig, xcitConfig, xcitShapes } from "../../../models/xcit.ts";
import { assertEquals, assertRejects, assertStringIncludes } from "../../assert.ts";

const SMALL = xcitConfig({ patchSize: 8, embedDim: 16, depth: 2, numHeads: 2 });

/** Tensors whose elements tell where they are. */
function tensorsOf(config: XcitConfig, rename: (name: string) => string = (name) => name): TensorToWrite[] {
  return [...xcitShapes(config), ...xcitBufferShapes(config)].map(([name, shape], i) => {
    const data = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, k) => i + k / 1000);
    return { name: rename(name), dtype: "F32", shape, bytes: () => new Uint8Array(data.buffer.slice(0)) };
  });
}

const open = async (tensors: TensorToWrite[]): Promise<TensorFile> =>
  await openWeights(bytesSource(await encodeSafetensors(tensors), "xcit.safetensors"));

/** timm's names: positions, and three matrices in class attention. */
function asTimm(tensors: TensorToWrite[]): TensorToWrite[] {
  return tensors.flatMap((t) => {
    const name = t.name.replace("pos_embeder.", "pos_embed."),
      split = /^(cls_attn_blocks\.\d+\.attn\.)qkv\./.exec(name);
    if (!split) return [{ ...t, name }];
    const shape = [t.shape[0] / 3, ...t.shape.slice(1)], bytes = shape.reduce((a, b) => a * b, 4);
    return ["q", "k", "v"].map((part, i) => ({
      ...t,
      name: name.replace("qkv", part),
      shape,
      bytes: async () => (await t.bytes()).slice(i * bytes, (i + 1) * bytes),
    }));
  });
}

Deno.test("weights: an XCiT by its shapes, under the release's names and timm's", async () => {
  const official = await readBackbone(await open(tensorsOf(SMALL, (name) => `module.backbone.${name}`)));
  assertEquals(official.config, SMALL);
  assertEquals([official.report.missing.length, official.report.unexpected.length], [0, 0]);
  const timm = await readBackbone(await open(asTimm(tensorsOf(SMALL))));
  assertEquals(timm.config, SMALL);
  for (const [name, { data }] of official.weights) assertEquals(timm.weights.get(name)?.data, data, name);
  const p16 = xcitConfig({ patchSize: 16, embedDim: 128, depth: 1, numHeads: 4, tokensNorm: false });
  assertEquals((await readBackbone(await open(tensorsOf(p16)))).config, p16); // nano: [CLS] alone is normed
});

Deno.test("weights: an XCiT with something missing or odd is refused by name", async () => {
  const without = (pattern: RegExp) => tensorsOf(SMALL).filter(({ name }) => !pattern.test(name));
  const refuse = async (tensors: TensorToWrite[], message: string) =>
    await assertRejects(async () => await readBackbone(await open(tensors)), SyntaxError, message);
  await refuse(without(/blocks\.1\.gamma3$/), "1 missing: backbone.blocks.1.gamma3");
  await refuse(without(/bn\.running_var$/), "blocks.0.local_mp.bn.running_var");
  await refuse(without(/^blocks\.0\.attn\.temperature$/), "blocks.0.attn.temperature is missing");
  await assertRejects(
    async () => await readBackbone(await open(tensorsOf(SMALL)), { config: { numHeads: 4 } }),
    RangeError,
    "has 2 heads, not 4",
  );
});

Deno.test("inspect: the release's XCiTs are known by names and shapes, timm's files of them are none", async () => {
  const sized = async (arch: keyof typeof XCIT_SIZES, patchSize: number, timm: boolean) => {
    const config = xcitConfig({ ...XCIT_SIZES[arch], patchSize });
    const list = [...xcitShapes(config), ...xcitBufferShapes(config)].map(([name, shape]) => ({ name, shape }));
    const infos = (timm ? list.map((t) => ({ ...t, name: t.name.replace("pos_embeder", "pos_embed") })) : list)
      .map((t) => ({ ...t, dtype: "F32" as const }));
    const file: TensorFile = {
      name: "x.pth",
      format: "PyTorch (zip)",
      tensors: new Map(infos.map((info) => [info.name, info])),
      metadata: {},
      read: () => Promise.reject(new Error("nothing is to be read")),
      close() {},
    };
    return await describeLayout(file);
  };
  for (const [arch, patch] of [["xcit_small_12", 16], ["xcit_small_12", 8], ["xcit_medium_24", 8]] as const) {
    const { sentences, published } = await sized(arch, patch, false);
    assertStringIncludes(sentences.join(), `an XCiT ${arch}_p${patch}`);
    assertEquals(published?.file, `dino_${arch}_p${patch}_pretrain.pth`);
  }
  assertEquals((await sized("xcit_small_12", 16, true)).published, undefined);
  assertEquals((await sized("xcit_tiny_12", 16, false)).published, undefined); // not released by DINO
});

Deno.test("convert: an XCiT survives every format that can hold it", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const file = await open(tensorsOf(SMALL)), was = await readBackbone(file);
    for (const name of ["a.safetensors", "a.pth", "a.npz", "a.onnx"]) {
      const made = await convertWeights(file, `${folder}/${name}`, { format: formatOfPath(name) });
      assertEquals([made.tensors, made.backbone?.config], [was.report.matched.length, SMALL]);
      const again = await openWeights(`${folder}/${name}`);
      const read = await readBackbone(again);
      again.close();
      assertEquals(read.config, SMALL, name);
      for (const [key, { data }] of was.weights) assertEquals(read.weights.get(key)?.data, data, `${name}: ${key}`);
    }
    await assertRejects(
      () => convertWeights(file, `${folder}/hf`, { format: "huggingface" }),
      TypeError,
      "only a Vision Transformer",
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
