import { throughputPlot } from "../../../cli/report/throughput_plot.ts";
import { forwardFlops, measureThroughput } from "../../../dino/eval/throughput.ts";
import { RESNET_SIZES, resnetConfig } from "../../../models/resnet.ts";
import { VIT_SIZES, vitConfig } from "../../../models/vit.ts";
import { assert, assertAlmostEquals, assertEquals } from "../../assert.ts";
import { onEachBackend } from "../../backends.ts";

Deno.test("work of a forward pass: ViT-S/16 at 224 takes the published 4.6 billion multiplications, a ResNet-50 its 4.1", () => {
  const config = vitConfig({ ...VIT_SIZES.vit_small, patchSize: 16 });
  assertAlmostEquals(forwardFlops(config, 224) / 2e9, 4.6, 0.05);
  assertAlmostEquals(forwardFlops(resnetConfig(RESNET_SIZES.resnet50), 224) / 2e9, 4.09, 0.01);
});

onEachBackend("throughput: counts parameters, and frees what it took", async (backend) => {
  const config = vitConfig({ embedDim: 16, depth: 1, numHeads: 2, patchSize: 4, imageSize: 8 });
  const options = { imageSize: 8, batch: 2, seconds: 0.01 };
  const first = await measureThroughput(backend, config, options);
  const held = backend.memory.persistent;
  const second = await measureThroughput(backend, config, options);
  assertEquals(backend.memory.persistent, held);
  assertEquals([first.tokens, second.parameters], [5, first.parameters]);
  assert(first.imagesPerSecond > 0 && first.peakBytes > 4 * first.parameters);
}, { backends: ["wasm", "webgpu"] });

Deno.test("a throughput plot holds every point inside its frame, also when there is one", () => {
  const point = { arch: "a<b", patchSize: 8, imagesPerSecond: 3, peakBytes: 2 ** 24 };
  const one = throughputPlot([point], "x & y");
  assert(one.includes("a&lt;b/8") && one.includes("x &amp; y") && !/NaN|Infinity/.test(one));
  const two = throughputPlot([point, { ...point, patchSize: 16, imagesPerSecond: 1200 }], "d");
  for (const [, x] of two.matchAll(/cx="([\d.]+)"/g)) assert(Number(x) >= 70 && Number(x) <= 610);
});
