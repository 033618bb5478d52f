// A network to begin with or to evaluate, from any file of weights: our checkpoints, published ones, other tools' formats.

import type { NetworkName } from "../models/weights/network.ts";
import { openWeights } from "../models/weights/open.ts";
import type { BackboneConfig } from "../models/backbone.ts";
import { readBackbone } from "../models/weights/backbone_weights.ts";
import type { Preprocessing } from "../models/weights/preprocessing.ts";
import { describedBy, describeReport, type LoadedTensor, type VitReading } from "../models/weights/vit_weights.ts";

export type { NetworkName };

/** Weights by their names inside the network: `backbone.*`, and `head.*` if the file has a head. */
export interface LoadedWeights {
  /** Tensors by name. */
  readonly weights: ReadonlyMap<string, LoadedTensor>;
  /** Batches that the running statistics of batch norms have seen, by names such as `backbone.bn1.num_batches_tracked`. */
  readonly batchCounts: ReadonlyMap<string, number>;
  /** Architecture of the backbone, from the shapes and what the file says about itself. */
  readonly backbone: BackboneConfig;
  /** What the file says is done to images before the network sees them. */
  readonly preprocessing?: Preprocessing;
  /** What the file itself says of what no shape shows. */
  readonly stated: NonNullable<VitReading["config"]>;
  /** Where they were read. */
  readonly path: string;
  /** Sentences: what fitted, what was left out, what was assumed. */
  readonly notices: readonly string[];
}

/**
 * Reads a network.
 *
 * @param path of a safetensors file or its index of shards, a PyTorch file, ONNX, npz, or a Hugging Face folder
 * @param network of a checkpoint with two
 * @param given what the file cannot tell: heads and epsilon are not to be seen in shapes
 * @throws {SyntaxError} if the file is damaged or holds no Vision Transformer
 * @throws {TypeError} if it asks for more than tensors and plain data, or is of a kind that cannot be run
 * @throws {RangeError} if there is no such file
 */
export async function loadWeights(
  path: string,
  network: NetworkName = "teacher",
  given?: VitReading["config"],
): Promise<LoadedWeights> {
  const file = await openWeights(path);
  try {
    const read = await readBackbone(file, { network, config: given });
    const { config: backbone, weights, batchCounts, report, preprocessing } = read;
    return {
      weights,
      batchCounts,
      backbone,
      preprocessing,
      path,
      stated: describedBy(file),
      notices: [`${path}: ${describeReport(report)}`],
    };
  } finally {
    file.close();
  }
}
