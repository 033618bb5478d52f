// A ResNet as an ONNX model: any batch, any image size or a fixed one.

import type { ResnetConfig, ResnetLayer } from "../resnet.ts";
import { resnetBlocks, resnetStem } from "../resnet.ts";
import { type OnnxExtent, OnnxFloat, OnnxGraph } from "./onnx_graph.ts";
import type { TensorToWrite } from "./safetensors.ts";
import { VIT_KEY } from "./vit_weights.ts";

/**
 * Writes a model with the input `pixel_values` [batch, channels, height, width], normalised as in training, and the outputs
 * `features` [batch, embedDim], which is the mean of `last_map` [batch, embedDim, height/32, width/32]. Batch norms use their
 * running statistics. Weights keep torchvision's names.
 *
 * @param tensors of the backbone without `backbone.`, float32, running statistics among them
 * @throws {RangeError} if it would be larger than an ONNX file can be
 */
export async function writeResnetOnnx(
  path: string,
  config: ResnetConfig,
  tensors: readonly TensorToWrite[],
  { fixedSize = false }: { fixedSize?: boolean } = {},
): Promise<void> {
  const g = new OnnxGraph("resnet");
  for (const tensor of tensors) g.tensor(tensor);
  const size: OnnxExtent[] = fixedSize ? [config.imageSize, config.imageSize] : ["height", "width"];
  const image = g.input("pixel_values", ["batch", config.inChannels, ...size]);
  const convolve = (x: string, { conv, norm, kernel, stride }: ResnetLayer) => {
    const padding = (kernel - 1) / 2;
    const y = g.node("Conv", [x, `${conv}.weight`], {
      kernel_shape: [kernel, kernel],
      strides: [stride, stride],
      pads: [padding, padding, padding, padding],
    });
    const statistics = ["weight", "bias", "running_mean", "running_var"].map((name) => `${norm}.${name}`);
    return g.node("BatchNormalization", [y, ...statistics], { epsilon: new OnnxFloat(config.batchNormEps) });
  };
  const entrance = g.node("Relu", [convolve(image, resnetStem(config))]);
  let x = g.node("MaxPool", [entrance], { kernel_shape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1] });
  const blocks = resnetBlocks(config);
  blocks.forEach(({ body, downsample }, i) => {
    let h = x;
    for (const layer of body.slice(0, -1)) h = g.node("Relu", [convolve(h, layer)]);
    const sum = g.node("Add", [convolve(h, body.at(-1)!), downsample ? convolve(x, downsample) : x]);
    x = g.node("Relu", [sum], {}, i === blocks.length - 1 ? "last_map" : undefined);
  });
  g.node("Flatten", [g.node("GlobalAveragePool", [x])], { axis: 1 }, "features");
  g.output("features", ["batch", config.embedDim]);
  g.output("last_map");
  await g.write(path, { [VIT_KEY]: JSON.stringify(config) });
}
