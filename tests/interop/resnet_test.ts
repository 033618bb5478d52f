// ResNets against timm and onnxruntime, both ways. Needs a Python with torch, timm and onnxruntime: DENODINO_PYTHON, or python3.

import { convertWeights } from "../../models/weights/convert.ts";
import { readBackbone } from "../../models/weights/backbone_weights.ts";
import { openWeights } from "../../models/weights/open.ts";
import { encodeSafetensors } from "../../models/weights/safetensors.ts";
import { writeNpy } from "../../models/weights/npy.ts";
import { type ResnetConfig, resnetConfig } from "../../models/resnet.ts";
import { VIT_KEY } from "../../models/weights/vit_weights.ts";
import { openWasm } from "../../wasm/mod.ts";
import { Comparison, findPython, runScript } from "./python.ts";
import { assert, assertEquals } from "../assert.ts";
import { resnetFeatures, resnetTensors } from "../models/weights/toy_resnet.ts";
import { toyImages } from "../models/weights/toy_vit.ts";

/** float32 through some twenty layers, values of order 1. */
const TOLERANCE = 1e-4;

const found = await findPython("torch, timm, onnxruntime", "torch, timm and onnxruntime");
const { reason } = found;
if (reason) console.log(`interop of ResNets: skipped: ${reason}`);

Deno.test({
  name: `interop: ResNets in timm and onnxruntime, both ways${reason ? ` (skipped: ${reason})` : ""}`,
  ignore: reason !== undefined,
  fn: async () => {
    const folder = await Deno.makeTempDir(), at = (name: string) => `${folder}/${name}`;
    const config = resnetConfig({ block: "bottleneck", layers: [1, 2, 1, 1], imageSize: 40 }); // timm has no smaller ones
    const backend = await openWasm({ threads: 1 }); // these are too large for the float64 reference
    try {
      const file = await openWeights(
        await encodeSafetensors(resnetTensors(config), { [VIT_KEY]: JSON.stringify(config) }),
      );
      await convertWeights(file, at("ours.pth"), { format: "pytorch" });
      await convertWeights(file, at("dynamic.onnx"), { format: "onnx" });
      await convertWeights(file, at("fixed.onnx"), { format: "onnx", fixedSize: true });
      const square = toyImages(2, 40, 40), oblong = toyImages(1, 45, 26);
      for (
        const [name, data, shape] of [["square", square, [2, 3, 40, 40]], ["oblong", oblong, [1, 3, 45, 26]]] as const
      ) {
        const bytes = () => new Uint8Array(data.buffer as ArrayBuffer);
        await writeNpy(at(`${name}.npy`), { name, dtype: "F32", shape: [...shape], bytes });
      }
      const printed = await runScript(found, "resnet.py", folder);
      const comparison = new Comparison(folder, TOLERANCE);
      const ours = { config, weights: (await readBackbone(file)).weights };
      const onSquare = await resnetFeatures(backend, ours, square, [2, 40, 40]);
      const onOblong = await resnetFeatures(backend, ours, oblong, [1, 45, 26]);
      await comparison.same("timm_square", onSquare);
      await comparison.same("timm_oblong", onOblong);
      await comparison.same("onnx_dynamic_square", onSquare);
      await comparison.same("onnx_dynamic_oblong", onOblong);
      await comparison.same("onnx_fixed_square", onSquare);

      const theirs = await openWeights(at("theirs.pth"));
      const read = await readBackbone(theirs);
      theirs.close();
      const loaded = read.config as ResnetConfig;
      assertEquals([loaded.block, [...loaded.layers], loaded.basePlanes, loaded.embedDim], [
        "basic",
        [1, 2, 1, 1],
        64,
        512,
      ]);
      assert(read.report.unexpected.includes("state_dict.module.fc.weight"), read.report.unexpected.join());
      await comparison.same(
        "theirs_oblong",
        await resnetFeatures(backend, { config: loaded, weights: read.weights }, oblong, [1, 45, 26]),
      );
      console.log(`interop of ResNets: ${printed}: ${comparison.checked.join(", ")}`);
    } finally {
      await backend.close();
      await Deno.remove(folder, { recursive: true });
    }
  },
});
