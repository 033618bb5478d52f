// A network to begin with or to evaluate, from any file of weights: our checkpoints, published ones, other tools' formats.

import type { NetworkName } from "../models/weights/network.ts";
import { openWeights } from "../models/weights/open.ts";
import type { TensorFile } from "../models/weights/tensor_file.ts";
import { describeReport, type LoadedTensor, readVit, type VitReading } from "../models/weights/vit_weights.ts";
import type { VitConfig } from "../models/vit.ts";
import { readTrainingState, STATE_KEY } from "./checkpoint.ts";
import { architectureOf } from "./config_check.ts";

export type { NetworkName };

/** Weights by their names inside the network: `backbone.*`, and `head.*` if the file has a head. */
export interface LoadedWeights {
  /** Tensors by name. */
  readonly weights: ReadonlyMap<string, LoadedTensor>;
  /** Architecture of the backbone, from the shapes and what the file says about itself. */
  readonly backbone: VitConfig;
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
 * @throws {SyntaxError} if the file is damaged or holds no Vision Transformer
 * @throws {TypeError} if it asks for more than tensors and plain data, or is of a kind that cannot be run
 * @throws {RangeError} if there is no such file
 */
export async function loadWeights(path: string, network: NetworkName = "teacher"): Promise<LoadedWeights> {
  const file = await openWeights(path);
  try {
    const config = await ownConfig(file);
    const { config: backbone, weights, report } = await readVit(file, { network, config });
    return { weights, backbone, path, notices: [`${path}: ${describeReport(report)}`] };
  } finally {
    file.close();
  }
}

/** What only our own checkpoints say: nobody sees heads and epsilon in shapes. */
export async function ownConfig(file: TensorFile): Promise<VitReading["config"]> {
  if (file.metadata[STATE_KEY] === undefined) return undefined;
  const { config } = await readTrainingState(file.name);
  return { numHeads: architectureOf(config).numHeads, layerNormEps: config.layerNormEps };
}
