// A ResNet from a file of weights: its architecture by the shapes, its tensors and running statistics, and a report on both.

import { resnetBufferShapes, type ResnetConfig, resnetConfig, resnetShapes } from "../resnet.ts";
import type { NetworkTensors } from "./network.ts";
import {
  compareNetwork,
  type LoadedTensor,
  readMatched,
  requireComplete,
  VIT_KEY,
  type WeightsReport,
} from "./vit_weights.ts";

/** A ResNet in memory. */
export interface ResnetWeights {
  /** Its architecture. */
  readonly config: ResnetConfig;
  /** By published names: `backbone.*` with the running statistics, and `head.*` if the file has a projection head. */
  readonly weights: ReadonlyMap<string, LoadedTensor>;
  /** What fitted, and what did not. */
  readonly report: WeightsReport;
}

/**
 * Reads a ResNet that was found.
 *
 * @throws {SyntaxError} if tensors are missing, or are of another shape than a ResNet's
 */
export async function readResnetNetwork(network: NetworkTensors): Promise<ResnetWeights> {
  const config = inferResnet(network);
  const report = compareResnet(network, config);
  requireComplete(network.file, report, "ResNet");
  return { config, weights: await readMatched(network, report), report };
}

/**
 * Architecture by the shapes. Epsilon and momentum of the batch norms are not to be seen in them: torchvision's are taken.
 *
 * @throws {SyntaxError} if shapes contradict each other
 */
export function inferResnet({ file, tensors }: NetworkTensors): ResnetConfig {
  const shape = (name: string) => {
    const found = tensors.get(`backbone.${name}`)?.shape;
    if (found?.length !== 4 || found.includes(0)) {
      throw new SyntaxError(`${file.name}: ${name} is ${found ? `[${found}]` : "missing"}: no ResNet`);
    }
    return found;
  };
  const layers: number[] = [];
  const has = (stage: number, block: number) => tensors.has(`backbone.layer${stage}.${block}.conv1.weight`);
  while (has(layers.length + 1, 0)) {
    let blocks = 1;
    while (has(layers.length + 1, blocks)) blocks++;
    layers.push(blocks);
  }
  const [basePlanes, inChannels] = shape("conv1.weight");
  const bottleneck = tensors.has("backbone.layer1.0.conv3.weight");
  const inner = shape("layer1.0.conv1.weight")[0];
  if (bottleneck && inner % basePlanes !== 0) {
    throw new SyntaxError(
      `${file.name}: a ResNet of ${basePlanes} planes with ${inner} inside its blocks is not known`,
    );
  }
  const imageSize = describedSize(file.metadata);
  return resnetConfig({
    block: bottleneck ? "bottleneck" : "basic",
    layers,
    basePlanes,
    inChannels,
    innerWidth: bottleneck ? inner / basePlanes : 1,
    ...(imageSize === undefined ? {} : { imageSize }),
  });
}

/** What our own files say of the size of images. */
function describedSize(metadata: Readonly<Record<string, string>>): number | undefined {
  try {
    const { imageSize } = JSON.parse(metadata[VIT_KEY] ?? "{}");
    return Number.isSafeInteger(imageSize) && imageSize > 0 ? imageSize : undefined;
  } catch {
    return undefined; // not ours after all
  }
}

/** Holds the network's tensors against what its architecture needs, running statistics among them. */
export function compareResnet(network: NetworkTensors, config: ResnetConfig): WeightsReport {
  return compareNetwork(network, [...resnetShapes(config), ...resnetBufferShapes(config)]);
}
