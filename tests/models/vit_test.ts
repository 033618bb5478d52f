// Vision Transformers of every published size, and of sizes nobody published.

import { patchify } from "../../models/graph/ops/tokens.ts";
import { Program } from "../../models/graph/program.ts";
import { ReferenceBackend } from "../../models/graph/reference.ts";
import { tensor } from "../../models/graph/tensor.ts";
import { vit, VIT_SIZES, type VitConfig, vitConfig, vitShapes } from "../../models/vit.ts";
import { assertEquals, assertThrows } from "../assert.ts";

const elements = (config: VitConfig) =>
  vitShapes(config).reduce((sum, [, shape]) => sum + shape.reduce((a, b) => a * b, 1), 0);

Deno.test("ViT: as many parameters as published, or as timm counts where nothing is published", () => {
  const counts: [keyof typeof VIT_SIZES, number, number][] = [
    ["vit_tiny", 16, 5_524_416],
    ["vit_small", 16, 21_665_664],
    ["vit_small", 8, 21_670_272],
    ["vit_base", 16, 85_798_656],
    ["vit_base", 8, 85_807_872],
    ["vit_large", 16, 303_301_632],
  ];
  for (const [arch, patchSize, count] of counts) {
    assertEquals(elements(vitConfig({ ...VIT_SIZES[arch], patchSize })), count, `${arch}/${patchSize}`);
  }
  const registers = vitConfig({ ...VIT_SIZES.vit_small, patchSize: 16, registers: 4 });
  assertEquals(elements(registers), 21_665_664 + 4 * 384);
});

Deno.test("ViT: any patch size and number of heads; what does not divide is refused", () => {
  for (const [patchSize, numHeads, side] of [[16, 1, 40], [8, 3, 17], [5, 4, 23], [4, 12, 9], [5, 6, 5]]) {
    for (const registers of [0, 3]) {
      const config = vitConfig({ embedDim: 12, depth: 1, numHeads, patchSize, imageSize: 4 * patchSize, registers });
      const backend = new ReferenceBackend();
      const p = new Program("any");
      const parameters = new Map(vitShapes(config).map(([name, shape]) => [name, tensor(name, shape, "param")]));
      const image = tensor("image", [2, 3, side, side + patchSize], "input");
      const crops = { patches: patchify(p, image, patchSize), images: 2, height: side, width: side + patchSize };
      const { blocks, tokens } = vit(p, (name) => parameters.get(name)!, config, crops);
      const grid = Math.floor(side / patchSize);
      assertEquals(tokens, 1 + registers + grid * (grid + 1));
      assertEquals(blocks[0].shape, [2 * tokens, 12]);
      backend.compile(p);
    }
  }
  assertThrows(() => vitConfig({ embedDim: 12, depth: 1, numHeads: 5, patchSize: 4 }), RangeError, "not a multiple");
});
