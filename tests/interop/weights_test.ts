// Weights against what others wrote: PyTorch, timm, transformers and onnxruntime load ours and compute the same; we load theirs.

import { convertWeights } from "../../models/weights/convert.ts";
import { writeNpy } from "../../models/weights/npy.ts";
import { openWeights } from "../../models/weights/open.ts";
import { readFloat32 } from "../../models/weights/tensor_file.ts";
import { readVit, type VitReading } from "../../models/weights/vit_weights.ts";
import { Comparison, findPython, runScript } from "./python.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";
import { forward, TOY, toyFile, toyImages } from "../models/weights/toy_vit.ts";

/** Outputs after a final norm are of the order of 1; both sides compute in float32. */
const TOLERANCE = 1e-4;

const found = await findPython("torch, numpy", "torch, timm, transformers and onnxruntime");
const { reason } = found;
if (reason) console.log(`interop of weights: skipped: ${reason}`);

Deno.test({
  name: `interop: PyTorch, timm, transformers and onnxruntime, both ways${reason ? ` (skipped: ${reason})` : ""}`,
  ignore: reason !== undefined,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    const at = (name: string) => `${folder}/${name}`;
    try {
      const head = {
        name: "head.mlp.0.weight",
        dtype: "F32" as const,
        shape: [2, 48],
        bytes: () => new Uint8Array(384),
      };
      const file = await toyFile();
      await convertWeights(file, at("ours.pth"), { format: "pytorch" });
      await convertWeights(file, at("ours_half.pth"), { format: "pytorch", dtype: "bfloat16" });
      await convertWeights(await toyFile(TOY, "backbone.", [head]), at("ours_full.pth"), {
        format: "pytorch",
        head: true,
      });
      await convertWeights(file, at("ours.npz"), { format: "npz" });
      await convertWeights(file, at("ours_hf"), { format: "huggingface" });
      await convertWeights(file, at("dynamic.onnx"), { format: "onnx" });
      await convertWeights(file, at("fixed.onnx"), { format: "onnx", fixedSize: true, attention: true });
      const withRegisters = await toyFile({ ...TOY, registers: 4 });
      await convertWeights(withRegisters, at("registers.onnx"), { format: "onnx" });
      const square = toyImages(2, 32, 32), oblong = toyImages(1, 45, 26);
      const pixels = (data: Float32Array<ArrayBuffer>, shape: number[]) => ({
        name: "pixels",
        dtype: "F32" as const,
        shape,
        bytes: () => new Uint8Array(data.buffer),
      });
      await writeNpy(at("square.npy"), pixels(square as Float32Array<ArrayBuffer>, [2, 3, 32, 32]));
      await writeNpy(at("oblong.npy"), pixels(oblong as Float32Array<ArrayBuffer>, [1, 3, 45, 26]));

      const printed = await runScript(found, "weights.py", folder);
      const report = JSON.parse(printed.split("\n").at(-1)!);
      console.log(`interop of weights: ${JSON.stringify(report)}`);
      const comparison = new Comparison(folder, TOLERANCE);

      // Ours, loaded by others.
      const ours = await readVit(file);
      const onSquare = await forward(ours, square, [2, 32, 32]), onOblong = await forward(ours, oblong, [1, 45, 26]);
      const cls = ours.weights.get("backbone.cls_token")!.data;
      await comparison.same("pth_cls_token", cls, 0);
      await comparison.same("npz_cls_token", cls, 0);
      await comparison.same("half_cls_token", cls, 2 ** -8);
      if (report.timm) await comparison.same("timm_square", onSquare.tokens);
      if (report.transformers) await comparison.same("hf_square", onSquare.tokens);
      if (report.onnxruntime) {
        await comparison.same("onnx_dynamic_square_last_hidden_state", onSquare.tokens);
        await comparison.same("onnx_dynamic_oblong_last_hidden_state", onOblong.tokens);
        await comparison.same("onnx_dynamic_oblong_features", onOblong.tokens.subarray(0, 48));
        await comparison.same("onnx_fixed_square_last_hidden_state", onSquare.tokens);
        await comparison.same("onnx_fixed_square_attention", onSquare.attention);
        const { tokens } = await forward(await readVit(withRegisters), oblong, [1, 45, 26]);
        await comparison.same("onnx_registers_oblong_last_hidden_state", tokens);
      }

      // Theirs, loaded by us.
      const load = async (name: string, reading: VitReading = { config: { numHeads: 3 } }) => {
        const file = await openWeights(at(name));
        try {
          return await readVit(file, reading);
        } finally {
          file.close();
        }
      };
      for (const name of ["theirs_zip.pth", "theirs_legacy.pth"]) {
        const { weights, config, report } = await load(name);
        assertEquals(config, TOY);
        for (const [key, { data }] of ours.weights) assertEquals(weights.get(key)!.data, data);
        assert(report.unexpected.includes("dino_loss.center"));
        const student = await load(name, { network: "student", config: { numHeads: 3 } });
        assertEquals(student.weights.get("backbone.cls_token")!.data[0], Math.fround(cls[0] + 1));
      }
      await assertRejects(() => load("theirs_module.pth"), TypeError, "torch.nn.modules.linear.Linear");
      if (report.timm) {
        await comparison.same(
          "theirs_timm",
          (await forward(await load("theirs_timm.pth"), square, [2, 32, 32])).tokens,
        );
      }
      if (report.timm) {
        const registers = await load("theirs_timm_registers.pth");
        await comparison.same("theirs_timm_registers", (await forward(registers, square, [2, 32, 32])).tokens);
      }
      if (report.transformers) {
        const theirs = await load("theirs_hf", {});
        assertEquals([theirs.config.numHeads, theirs.config.layerNormEps, theirs.config.qkvBias], [4, 1e-4, false]);
        await comparison.same("theirs_hf", (await forward(theirs, square, [2, 32, 32])).tokens);
        await comparison.same(
          "theirs_dinov2",
          (await forward(await load("theirs_dinov2", {}), square, [2, 32, 32])).tokens,
        );
        const registers = await load("theirs_registers", {});
        assertEquals(registers.config.registers, 4);
        await comparison.same("theirs_registers", (await forward(registers, square, [2, 32, 32])).tokens);
      }
      assertEquals((await load("theirs.npz")).weights.get("backbone.cls_token")!.data, cls);
      const arrays = await openWeights(at("theirs_plain.npz"));
      assertEquals([...await readFloat32(arrays, arrays.tensors.get("turned")!)], [
        0,
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
        9,
        10,
        11,
      ]);
      arrays.close();
      const views = await openWeights(at("theirs_views.pth"));
      const view = (name: string) => readFloat32(views, views.tensors.get(name)!);
      await comparison.same("views_turned", await view("turned"), 0);
      await comparison.same("views_slice", await view("slice"), 0);
      await comparison.same("views_far", await view("far"), 0);
      assertEquals(
        [...await view("wide")],
        [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4].concat([0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),
      );
      assertEquals([...await view("b")], [1.5, -2.25]);
      views.close();
      console.log(`  largest differences: ${comparison.checked.join(", ")}`);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
