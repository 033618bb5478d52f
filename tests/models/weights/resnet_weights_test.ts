// ResNets in and out of files: the published layout, every format that can hold one, and what is refused.

import { convertWeights, formatOfPath } from "../../../models/weights/convert.ts";
import { openWeights } from "../../../models/weights/open.ts";
import { describeLayout } from "../../../models/weights/published.ts";
import { findNetwork } from "../../../models/weights/network.ts";
import { readBackbone } from "../../../models/weights/backbone_weights.ts";
import { encodeSafetensors, type TensorToWrite } from "../../../models/weights/safetensors.ts";
import { elementCount, type TensorFile, type TensorInfo } from "../../../models/weights/tensor_file.ts";
import { inferResnet } from "../../../models/weights/resnet_weights.ts";
import { RESNET_SIZES, resnetBufferShapes, resnetConfig, resnetShapes } from "../../../models/resnet.ts";
import { assert, assertEquals, assertRejects, assertStringIncludes } from "../../assert.ts";
import { resnetTensors, TOY_RESNET } from "./toy_resnet.ts";

/** A file of which only names and shapes are ever asked for. */
function namesOnly(config: ReturnType<typeof resnetConfig>, prefix = "", extra: TensorInfo[] = []): TensorFile {
  const infos = [...resnetShapes(config), ...resnetBufferShapes(config)].flatMap(([name, shape]): TensorInfo[] => [
    { name: prefix + name, dtype: "F32", shape },
    ...name.endsWith("running_var")
      ? [{ name: prefix + name.replace("running_var", "num_batches_tracked"), dtype: "I64" as const, shape: [] }]
      : [],
  ]);
  return {
    name: "names",
    format: "test",
    tensors: new Map([...infos, ...extra].map((info) => [info.name, info])),
    metadata: {},
    read: () => Promise.reject(new Error("not to be read")),
    close: () => {},
  };
}

function counter(name: string, count: number): TensorToWrite {
  return { name, dtype: "I64", shape: [], bytes: () => new Uint8Array(BigInt64Array.of(BigInt(count)).buffer) };
}

Deno.test("every published ResNet is told by its shapes", () => {
  for (const [name, size] of Object.entries(RESNET_SIZES)) {
    const config = resnetConfig(size);
    assertEquals(inferResnet(findNetwork(namesOnly(config))), config, name);
  }
});

Deno.test("inspect: a ResNet-50 of the release's layout is known, another is not", async () => {
  const fifty = resnetConfig(RESNET_SIZES.resnet50);
  const { sentences, published } = await describeLayout(namesOnly(fifty));
  assertEquals(published, { file: "dino_resnet50_pretrain.pth", by: "names and shapes" });
  assertStringIncludes(
    sentences[0],
    "a ResNet resnet50, 2048 wide, 3 + 4 + 6 + 3 bottleneck blocks: 23 508 032 parameters",
  );
  const supervised = namesOnly(fifty, "module.", [{ name: "module.fc.weight", dtype: "F32", shape: [1000, 2048] }]);
  assertEquals((await describeLayout(supervised)).published, undefined);
  assertEquals((await describeLayout(namesOnly(resnetConfig(RESNET_SIZES.resnet18)))).published, undefined);
  const more = await describeLayout(namesOnly(fifty, "", [{ name: "layer4.bias", dtype: "F32", shape: [9] }]));
  assertEquals(more.published, undefined, "a tensor more is another file");
  assertStringIncludes(more.sentences[0], " 23 508 032 parameters");
});

Deno.test("a ResNet is read behind the usual prefixes, with its running statistics and a report", async () => {
  for (const prefix of ["", "module.", "backbone.", "teacher.backbone.", "state_dict.module.encoder_q."]) {
    const extra = [counter(`${prefix}bn1.num_batches_tracked`, 7), counter(`${prefix}bn9.num_batches_tracked`, 8)];
    const file = await openWeights(await encodeSafetensors([...resnetTensors(TOY_RESNET, prefix), ...extra]));
    const { config, weights, batchCounts, report } = await readBackbone(file);
    assertEquals(config, TOY_RESNET);
    assertEquals(weights.size, resnetShapes(TOY_RESNET).length + resnetBufferShapes(TOY_RESNET).length);
    assert(weights.has("backbone.layer1.0.downsample.1.running_var"));
    assertEquals([...batchCounts], [["backbone.bn1.num_batches_tracked", 7]]);
    assertEquals([report.missing, report.unexpected], [[], [`${prefix}bn9.num_batches_tracked`]]); // of no batch norm
  }
  const partial = resnetTensors(TOY_RESNET).filter(({ name }) => name !== "layer2.0.bn2.running_var");
  const file = await openWeights(await encodeSafetensors(partial));
  await assertRejects(() => readBackbone(file), SyntaxError, "1 missing: backbone.layer2.0.bn2.running_var");
});

Deno.test("convert: what batch norms have counted goes along as PyTorch keeps it, and stays an integer", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const counts = [counter("layer2.0.bn2.num_batches_tracked", 2 ** 40), counter("bn1.num_batches_tracked", 3)];
    const file = await openWeights(await encodeSafetensors([...resnetTensors(TOY_RESNET), ...counts]));
    for (const name of ["a.pth", "a.safetensors", "a.npz", "half.pth"]) {
      const dtype = name === "half.pth" ? "float16" : "float32", path = `${folder}/${name}`;
      const { parameters } = await convertWeights(file, path, { format: formatOfPath(path), dtype });
      assertEquals(parameters, resnetShapes(TOY_RESNET).reduce((sum, [, shape]) => sum + elementCount(shape), 0));
      const again = await openWeights(path), info = again.tensors.get("bn1.num_batches_tracked")!;
      assertEquals([info.dtype, [...info.shape]], ["I64", []], name);
      const { batchCounts } = await readBackbone(again);
      assertEquals(batchCounts.get("backbone.bn1.num_batches_tracked"), 3);
      assertEquals(batchCounts.get("backbone.layer2.0.bn2.num_batches_tracked"), 2 ** 40);
      if (name.endsWith(".pth")) { // behind the variance, as PyTorch lists them
        const names = [...again.tensors.keys()];
        assertEquals(names[names.indexOf("bn1.num_batches_tracked") - 1], "bn1.running_var");
      }
      again.close();
    }
    await convertWeights(file, `${folder}/a.onnx`, { format: "onnx" });
    const onnx = await openWeights(`${folder}/a.onnx`);
    assertEquals((await readBackbone(onnx)).batchCounts.size, 0);
    onnx.close();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("convert: a ResNet survives every format that can hold it, and the others refuse it", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const file = await openWeights(await encodeSafetensors(resnetTensors(TOY_RESNET)));
    const { weights } = await readBackbone(file);
    for (
      const [format, name] of [["safetensors", "a.safetensors"], ["pytorch", "a.pth"], ["onnx", "a.onnx"], [
        "npz",
        "a.npz",
      ]] as const
    ) {
      const path = `${folder}/${name}`;
      const { tensors, backbone } = await convertWeights(file, path, { format });
      assertEquals([tensors, backbone?.config], [weights.size, TOY_RESNET]);
      const again = await openWeights(path), read = await readBackbone(again);
      assertEquals(read.config, TOY_RESNET, format);
      for (const [key, { shape, data }] of weights) {
        assertEquals([...read.weights.get(key)!.shape], [...shape]);
        assertEquals(read.weights.get(key)!.data, data, `${format} ${key}`);
      }
      again.close();
    }
    const refused = (conversion: Parameters<typeof convertWeights>[2], reason: string) =>
      assertRejects(() => convertWeights(file, `${folder}/refused`, conversion), TypeError, reason);
    await refused({ format: "huggingface" }, "only a Vision Transformer can be written as huggingface");
    await refused({ format: "onnx", attention: true }, "a ResNet has no attention");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
