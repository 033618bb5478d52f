// XCiTs against timm and onnxruntime, both ways. Needs a Python with torch, timm and onnxruntime: DENODINO_PYTHON, or python3.

import { uploadBackbone } from "../../dino/eval/backbone.ts";
import { CLS_FEATURES, ImageEncoder } from "../../dino/eval/encoder.ts";
import { headConfig } from "../../models/dino_head.ts";
import { ReferenceBackend } from "../../models/graph/reference.ts";
import { initialParameters } from "../../models/init.ts";
import { type BackboneWeights, readBackbone } from "../../models/weights/backbone_weights.ts";
import { convertWeights } from "../../models/weights/convert.ts";
import { writeNpy } from "../../models/weights/npy.ts";
import { openWeights } from "../../models/weights/open.ts";
import { encodeSafetensors, type TensorToWrite } from "../../models/weights/safetensors.ts";
import { VIT_KEY } from "../../models/weights/vit_weights.ts";
import { xcitBufferShapes, xcitConfig, xcitShapes } from "../../models/xcit.ts";
import { Comparison, findPython, runScript } from "./python.ts";
import { assertEquals } from "../assert.ts";
import { toyImages } from "../models/weights/toy_vit.ts";

/** float32 through some ten layers, values of order 1. */
const TOLERANCE = 1e-4;
const CONFIG = xcitConfig({ patchSize: 8, embedDim: 32, depth: 2, numHeads: 4, imageSize: 32 });

const found = await findPython("torch, timm, onnxruntime", "torch, timm and onnxruntime");
const { reason } = found;
if (reason) console.log(`interop of XCiTs: skipped: ${reason}`);

/** A network that nobody has trained, with statistics that batch norms could have. */
function tensors(): TensorToWrite[] {
  const drawn = initialParameters({ backbone: CONFIG, head: headConfig({ inDim: 32, outDim: 2 }) }, 3, 0.15);
  const buffer = (shape: number[], name: string) =>
    Float32Array.from({ length: shape[0] }, (_, i) => name.endsWith("var") ? 1 + Math.sin(i) / 2 : Math.sin(i) / 4);
  return [...xcitShapes(CONFIG), ...xcitBufferShapes(CONFIG)].map(([name, shape]) => {
    const data = drawn.get(`backbone.${name}`) ?? buffer(shape, name);
    return { name, dtype: "F32", shape, bytes: () => new Uint8Array(new Float32Array(data).buffer) };
  });
}

Deno.test({
  name: `interop: XCiTs in timm and onnxruntime, both ways${reason ? ` (skipped: ${reason})` : ""}`,
  ignore: reason !== undefined,
  fn: async () => {
    const folder = await Deno.makeTempDir(), at = (name: string) => `${folder}/${name}`;
    const backend = new ReferenceBackend();
    try {
      const file = await openWeights(await encodeSafetensors(tensors(), { [VIT_KEY]: JSON.stringify(CONFIG) }));
      await convertWeights(file, at("ours.pth"), { format: "pytorch" });
      await convertWeights(file, at("dynamic.onnx"), { format: "onnx", attention: true });
      await convertWeights(file, at("fixed.onnx"), { format: "onnx", fixedSize: true });
      const square = toyImages(2, 32, 32), oblong = toyImages(1, 41, 26);
      for (
        const [name, data, shape] of [["square", square, [2, 3, 32, 32]], ["oblong", oblong, [1, 3, 41, 26]]] as const
      ) {
        const bytes = () => new Uint8Array(data.buffer as ArrayBuffer);
        await writeNpy(at(`${name}.npy`), { name, dtype: "F32", shape: [...shape], bytes });
      }
      const printed = await runScript(found, "xcit.py", folder);
      const comparison = new Comparison(folder, TOLERANCE);
      const run = async (read: BackboneWeights, pixels: Float32Array, [n, height, width]: [number, number, number]) => {
        const { parameters, dispose } = uploadBackbone(backend, { ...read, backbone: read.config, path: "xcit" });
        const encoder = new ImageEncoder(backend, parameters, read.config);
        const { features } = await encoder.encode(pixels, n, height, width, CLS_FEATURES);
        const { attention } = await encoder.encode(pixels, n, height, width, { attentionOf: 0 });
        encoder.dispose();
        dispose();
        return { features: features!, attention: attention! };
      };
      const ours = await readBackbone(file);
      const onSquare = await run(ours, square, [2, 32, 32]), onOblong = await run(ours, oblong, [1, 41, 26]);
      for (const who of ["timm", "onnx_dynamic"]) {
        await comparison.same(`${who}_square`, onSquare.features);
        await comparison.same(`${who}_oblong`, onOblong.features);
      }
      await comparison.same("onnx_fixed_square", onSquare.features);
      await comparison.same("onnx_attention_square", onSquare.attention);
      await comparison.same("onnx_attention_oblong", onOblong.attention);
      const onnx = await openWeights(at("dynamic.onnx"));
      assertEquals((await readBackbone(onnx)).config, CONFIG);
      onnx.close();

      const theirs = await openWeights(at("theirs.pth"));
      const read = await readBackbone(theirs);
      theirs.close();
      assertEquals(read.config, { ...CONFIG, patchSize: 16, imageSize: 224 });
      await comparison.same("theirs_oblong", (await run(read, oblong, [1, 41, 26])).features);
      console.log(`interop of XCiTs: ${printed}: ${comparison.checked.join(", ")}`);
    } finally {
      await backend.close();
      await Deno.remove(folder, { recursive: true });
    }
  },
});
