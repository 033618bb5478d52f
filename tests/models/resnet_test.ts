// ResNets: published parameter counts and names, and a forward and backward pass of the blocks that no golden case has.
import { Arena, layoutSegments } from "../../models/graph/arena.ts";
import { differentiate } from "../../models/graph/autodiff.ts";
import type { Backend } from "../../models/graph/backend.ts";
import { emitCopy } from "../../models/graph/ops/elementwise.ts";
import { Program } from "../../models/graph/program.ts";
import { ReferenceBackend } from "../../models/graph/reference.ts";
import { type Tensor, tensor } from "../../models/graph/tensor.ts";
import {
  resnet,
  RESNET_SIZES,
  resnetBlockOf,
  resnetBufferShapes,
  resnetConfig,
  resnetShapes,
} from "../../models/resnet.ts";
import { assert, assertEquals } from "../assert.ts";
import { onEachBackend } from "../backends.ts";
import { noise } from "./graph/op_cases.ts";

Deno.test("ResNets have the published numbers of parameters, without their classifiers", () => {
  const published = {
    resnet18: 11_176_512,
    resnet34: 21_284_672,
    resnet50: 23_508_032,
    resnet101: 42_500_160,
    resnet152: 58_143_808,
    wide_resnet50_2: 66_834_240,
    wide_resnet101_2: 124_837_696,
  };
  const count = (name: keyof typeof RESNET_SIZES) =>
    resnetShapes(resnetConfig(RESNET_SIZES[name])).reduce((sum, [, shape]) => sum + shape.reduce((a, b) => a * b), 0);
  for (const [name, parameters] of Object.entries(published)) {
    assertEquals(count(name as keyof typeof published), parameters, name);
  }
  assertEquals([count("resnet50w2"), count("resnet50w4")].map((n) => Math.round(n / 1e6)), [94, 375]);
});

Deno.test("a ResNet-50 has torchvision's names in torchvision's order", () => {
  const c = resnetConfig(RESNET_SIZES.resnet50), shapes = resnetShapes(c);
  assertEquals(shapes.length, 159);
  assertEquals(resnetBufferShapes(c).length, 106);
  assertEquals(shapes[0], ["conv1.weight", [64, 3, 7, 7]]);
  assertEquals(shapes.slice(3, 15).map(([name, shape]) => `${name} ${shape}`), [
    "layer1.0.conv1.weight 64,64,1,1",
    "layer1.0.bn1.weight 64",
    "layer1.0.bn1.bias 64",
    "layer1.0.conv2.weight 64,64,3,3",
    "layer1.0.bn2.weight 64",
    "layer1.0.bn2.bias 64",
    "layer1.0.conv3.weight 256,64,1,1",
    "layer1.0.bn3.weight 256",
    "layer1.0.bn3.bias 256",
    "layer1.0.downsample.0.weight 256,64,1,1",
    "layer1.0.downsample.1.weight 256",
    "layer1.0.downsample.1.bias 256",
  ]);
  assertEquals(["conv1.weight", "layer1.2.bn1.bias", "layer4.2.conv3.weight"].map((n) => resnetBlockOf(c, n)), [
    0,
    3,
    16,
  ]);
});

/** Features, gradients and running statistics of one training pass over two crops of odd sides. */
async function trainingPass(backend: Backend, block: "basic" | "bottleneck"): Promise<Float64Array[]> {
  const c = resnetConfig({ block, layers: [1, 2], basePlanes: 4, innerWidth: block === "basic" ? 1 : 2 });
  const random = noise(7);
  const parameters = new Arena("param", layoutSegments(resnetShapes(c)));
  const gradients = new Arena("gradient", parameters.segments, "state");
  const buffers = new Arena("buffer", layoutSegments(resnetBufferShapes(c)), "state");
  const [images, height, width] = [3, 21, 26];
  const patches = tensor("patches", [images * height * width, 3], "input");
  const cotangent = tensor("cotangent", [images, c.embedDim], "input");
  for (const t of [parameters.flat, patches, cotangent]) {
    backend.write(t, Float32Array.from({ length: t.shape.reduce((a, b) => a * b) }, random));
  }
  const p = new Program("training pass");
  const lookUp = (name: string): Tensor => buffers.tensors.get(name) ?? parameters.get(name);
  const { features } = resnet(p, lookUp, c, { patches, images, height, width }, { training: true });
  const read = tensor("features", features.shape, "output");
  emitCopy(p, features, read);
  const wrt = parameters.segments.map(({ name }) => [parameters.get(name), gradients.get(name)] as const);
  differentiate(p, { seeds: [[features, cotangent]], wrt });
  await (await backend.compile(p)).run();
  const results: Float64Array[] = [];
  for (const t of [read, buffers.flat, gradients.flat]) results.push(Float64Array.from(await backend.read(t)));
  return results;
}

for (const block of ["basic", "bottleneck"] as const) {
  onEachBackend(`a ResNet of ${block} blocks trains as the reference does`, async (backend) => {
    const truth = await trainingPass(new ReferenceBackend(), block), got = await trainingPass(backend, block);
    truth.forEach((values, which) => {
      const largest = values.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
      const error = values.reduce((worst, v, i) => Math.max(worst, Math.abs(v - got[which][i])), 0);
      // Some hundred roundings in a row, a few of them divided by small deviations.
      assert(error <= 1e-4 * largest, `result ${which} is off by ${error} of ${largest}`);
    });
  }, { backends: ["wasm", "webgpu"] });
}
