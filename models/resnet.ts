// Residual networks: parameters under torchvision's names, and the forward pass on channels-last crops.
import { batchNorm } from "./graph/ops/batch_norm.ts";
import { conv2d, type Grid } from "./graph/ops/convolution.ts";
import { averagePool, maxPool } from "./graph/ops/pooling.ts";
import { relu } from "./graph/ops/relu.ts";
import { type Program, require } from "./graph/program.ts";
import type { Tensor } from "./graph/tensor.ts";
import type { Parameters, PatchBatch } from "./vit.ts";

/** Extents of a ResNet without its classifier. */
export interface ResnetConfig {
  /** Tells it from other backbones. */
  readonly family: "resnet";
  /** `basic`: two 3×3 convolutions; `bottleneck`: 1×1, 3×3 with the stride, 1×1 to four times the planes. */
  readonly block: "basic" | "bottleneck";
  /** Blocks of each stage; each stage but the first halves the sides and doubles the planes. */
  readonly layers: readonly number[];
  /** Channels of the stem and planes of the first stage; 64, or that times a width multiplier. */
  readonly basePlanes: number;
  /** Inner channels of a bottleneck over its planes; 2 in the wide_resnets. */
  readonly innerWidth: number;
  /** Colour channels. */
  readonly inChannels: number;
  /** Width of the features: the channels of the last stage. */
  readonly embedDim: number;
  /** Side in pixels of the square images it is made for, which evaluations take unless told otherwise; any size can be run. */
  readonly imageSize: number;
  /** Added to variances; 1e-5. */
  readonly batchNormEps: number;
  /** Weight of a batch in the running statistics; 0.1. */
  readonly batchNormMomentum: number;
}

/** Channels of a block's output over its planes. */
const EXPANSION = { basic: 1, bottleneck: 4 } as const;

/** Blocks of the published architectures. */
export const RESNET_SIZES = {
  resnet18: { block: "basic", layers: [2, 2, 2, 2] },
  resnet34: { block: "basic", layers: [3, 4, 6, 3] },
  resnet50: { block: "bottleneck", layers: [3, 4, 6, 3] },
  resnet101: { block: "bottleneck", layers: [3, 4, 23, 3] },
  resnet152: { block: "bottleneck", layers: [3, 8, 36, 3] },
  wide_resnet50_2: { block: "bottleneck", layers: [3, 4, 6, 3], innerWidth: 2 },
  wide_resnet101_2: { block: "bottleneck", layers: [3, 4, 23, 3], innerWidth: 2 },
  resnet50w2: { block: "bottleneck", layers: [3, 4, 6, 3], basePlanes: 128 },
  resnet50w4: { block: "bottleneck", layers: [3, 4, 6, 3], basePlanes: 256 },
} as const;

/** Completes a configuration with torchvision's defaults. Throws {RangeError} when an extent is not a whole number above 0. */
export function resnetConfig(
  config: Pick<ResnetConfig, "block" | "layers"> & Partial<ResnetConfig>,
): ResnetConfig {
  const { block, layers } = config;
  const { basePlanes = 64, innerWidth = 1, inChannels = 3, imageSize = 224 } = config;
  const { batchNormEps = 1e-5, batchNormMomentum = 0.1 } = config;
  const counts = [...layers, basePlanes, innerWidth, inChannels];
  require(
    layers.length > 0 && counts.every((n) => Number.isSafeInteger(n) && n > 0),
    "resnet",
    () => `layers [${layers}], basePlanes ${basePlanes}, innerWidth ${innerWidth}, inChannels ${inChannels}`,
  );
  const embedDim = basePlanes * 2 ** (layers.length - 1) * EXPANSION[block];
  return {
    family: "resnet",
    block,
    layers: [...layers],
    basePlanes,
    innerWidth,
    inChannels,
    embedDim,
    imageSize,
    batchNormEps,
    batchNormMomentum,
  };
}

/** A convolution and the batch norm behind it. */
export interface ResnetLayer {
  /** Name of the convolution. */
  readonly conv: string;
  /** Name of the batch norm. */
  readonly norm: string;
  /** Side of the window in pixels; (side − 1)/2 pixels are padded. */
  readonly kernel: number;
  /** Channels in. */
  readonly inputs: number;
  /** Channels out. */
  readonly outputs: number;
  /** Pixels from one window to the next. */
  readonly stride: number;
}

/** One residual block. */
export interface ResnetBlock {
  /** `layer1.0`, … */
  readonly name: string;
  /** With a rectifier behind each; the last one's comes after the sum with the shortcut. */
  readonly body: readonly ResnetLayer[];
  /** Where the input has another shape than the output. */
  readonly downsample?: ResnetLayer;
}

/** The convolution at the entrance. */
export function resnetStem(c: ResnetConfig): ResnetLayer {
  return { conv: "conv1", norm: "bn1", kernel: 7, inputs: c.inChannels, outputs: c.basePlanes, stride: 2 };
}

/** All residual blocks in order. */
export function resnetBlocks(c: ResnetConfig): ResnetBlock[] {
  const blocks: ResnetBlock[] = [];
  let inputs = c.basePlanes;
  c.layers.forEach((count, stage) => {
    const planes = c.basePlanes * 2 ** stage, outputs = planes * EXPANSION[c.block], inner = planes * c.innerWidth;
    for (let i = 0; i < count; i++) {
      const name = `layer${stage + 1}.${i}`, stride = stage > 0 && i === 0 ? 2 : 1;
      const layer = (n: number, kernel: number, from: number, to: number, step = 1): ResnetLayer => ({
        conv: `${name}.conv${n}`,
        norm: `${name}.bn${n}`,
        kernel,
        inputs: from,
        outputs: to,
        stride: step,
      });
      const body = c.block === "basic"
        ? [layer(1, 3, inputs, planes, stride), layer(2, 3, planes, planes)]
        : [layer(1, 1, inputs, inner), layer(2, 3, inner, inner, stride), layer(3, 1, inner, outputs)];
      const changes = stride !== 1 || inputs !== outputs;
      const downsample = {
        conv: `${name}.downsample.0`,
        norm: `${name}.downsample.1`,
        kernel: 1,
        inputs,
        outputs,
        stride,
      };
      blocks.push({ name, body, downsample: changes ? downsample : undefined });
      inputs = outputs;
    }
  });
  return blocks;
}

function layersOf(c: ResnetConfig): ResnetLayer[] {
  return [
    resnetStem(c),
    ...resnetBlocks(c).flatMap(({ body, downsample }) => downsample ? [...body, downsample] : body),
  ];
}

/** Names and shapes of all parameters, in torchvision's order; ResNet-50 has 159 tensors, 23 508 032 elements. */
export function resnetShapes(c: ResnetConfig): [name: string, shape: number[]][] {
  return layersOf(c).flatMap(({ conv, norm, kernel, inputs, outputs }): [string, number[]][] => [
    [`${conv}.weight`, [outputs, inputs, kernel, kernel]],
    [`${norm}.weight`, [outputs]],
    [`${norm}.bias`, [outputs]],
  ]);
}

/** Names and shapes of the running statistics. (`num_batches_tracked`, which computes nothing, is counted by the host.) */
export function resnetBufferShapes(c: ResnetConfig): [name: string, shape: number[]][] {
  return layersOf(c).flatMap(({ norm, outputs }): [string, number[]][] => [
    [`${norm}.running_mean`, [outputs]],
    [`${norm}.running_var`, [outputs]],
  ]);
}

/** Sides of the maps behind the stem and each stage, for a square image. */
export function resnetSides(c: ResnetConfig, imageSize: number): number[] {
  const half = (side: number) => Math.ceil(side / 2);
  const sides = [half(half(imageSize))];
  for (let stage = 1; stage < c.layers.length; stage++) sides.push(half(sides.at(-1)!));
  return [half(imageSize), ...sides];
}

/** Multiplications in a forward pass of one square image. */
export function resnetMultiplications(c: ResnetConfig, imageSize: number): number {
  const work = ({ kernel, inputs, outputs }: ResnetLayer, side: number) => kernel ** 2 * inputs * outputs * side ** 2;
  const [entrance, pooled] = resnetSides(c, imageSize);
  let total = work(resnetStem(c), entrance), side = pooled;
  for (const { body, downsample } of resnetBlocks(c)) {
    for (const layer of body) total += work(layer, side = Math.ceil(side / layer.stride));
    if (downsample) total += work(downsample, side);
  }
  return total;
}

/** Which block a parameter belongs to, from 1; 0 the entrance. */
export function resnetBlockOf(c: ResnetConfig, name: string): number {
  const found = /^layer(\d+)\.(\d+)\./.exec(name);
  if (!found) return 0;
  const before = c.layers.slice(0, Number(found[1]) - 1).reduce((a, b) => a + b, 0);
  return before + Number(found[2]) + 1;
}

/** What a forward pass makes. */
export interface ResnetResult {
  /** Outputs of the stages, channels last: [images·height·width, channels]. */
  readonly stages: readonly Tensor[];
  /** Grid of the last stage. */
  readonly grid: Grid;
  /** Mean over the pixels of the last stage, [images, embedDim]. */
  readonly features: Tensor;
}

/**
 * The whole network without its classifier, on crops cut into "patches" of one pixel: [images·height·width, inChannels].
 *
 * In training, batch norms normalise by the statistics of all pixels of the batch, those on the other ranks of the program
 * included, and move their running ones. Each part of an accumulated batch has statistics of its own.
 */
export function resnet(
  p: Program,
  params: Parameters,
  c: ResnetConfig,
  { patches, images, height, width }: PatchBatch,
  { training }: { training: boolean },
): ResnetResult {
  const convolve = (x: Tensor, grid: Grid, { conv, norm, kernel, stride }: ResnetLayer) => {
    const padding = (kernel - 1) / 2;
    const made = conv2d(p, x, grid, params(`${conv}.weight`), { stride, padding });
    const y = batchNorm(p, made.y, {
      weight: params(`${norm}.weight`),
      bias: params(`${norm}.bias`),
      runningMean: params(`${norm}.running_mean`),
      runningVar: params(`${norm}.running_var`),
    }, { training, eps: c.batchNormEps, momentum: c.batchNormMomentum });
    return { y, grid: made.grid };
  };
  const entrance = convolve(patches, { images, height, width }, resnetStem(c)); // [B·H/2·W/2, basePlanes]
  let { y: x, grid } = maxPool(p, relu(p, entrance.y), entrance.grid, { kernel: 3, stride: 2, padding: 1 });
  const stages: Tensor[] = [];
  const last = c.layers.map((count, stage) => `layer${stage + 1}.${count - 1}`);
  for (const { name, body, downsample } of resnetBlocks(c)) {
    const entering = x;
    x = p.segment(() => {
      const shortcut = downsample ? convolve(entering, grid, downsample).y : entering;
      let h = entering;
      body.forEach((layer, i) => {
        const made = convolve(h, grid, layer);
        h = i < body.length - 1 ? relu(p, made.y) : relu(p, made.y, shortcut);
        grid = made.grid;
      });
      return h;
    });
    if (last.includes(name)) stages.push(x);
  }
  return { stages, grid, features: averagePool(p, x, images) };
}
