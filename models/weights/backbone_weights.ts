// Any backbone from a file of weights: whichever of the known networks its tensors make up.

import type { BackboneConfig } from "../backbone.ts";
import { findNetwork, readBatchCounts } from "./network.ts";
import { parsePreprocessing, type Preprocessing } from "./preprocessing.ts";
import { readResnetNetwork } from "./resnet_weights.ts";
import type { TensorFile } from "./tensor_file.ts";
import { readXcitNetwork } from "./xcit_weights.ts";
import { type LoadedTensor, readVitNetwork, type VitReading, type WeightsReport } from "./vit_weights.ts";

/** A backbone in memory. */
export interface BackboneWeights {
  /** Its architecture. */
  readonly config: BackboneConfig;
  /** By published names: `backbone.*` with the running statistics of batch norms, and `head.*` if the file has a projection head. */
  readonly weights: ReadonlyMap<string, LoadedTensor>;
  /** Batches that the running statistics have seen, by names such as `backbone.bn1.num_batches_tracked`; empty if the file does not say. */
  readonly batchCounts: ReadonlyMap<string, number>;
  /** What fitted, and what did not. */
  readonly report: WeightsReport;
  /** What the file says is done to images before the network sees them. */
  readonly preprocessing?: Preprocessing;
}

/**
 * Reads a backbone.
 *
 * @throws {SyntaxError} if the file holds none, or one with tensors missing
 * @throws {TypeError} if it is of a kind this project cannot run, naming what
 */
export async function readBackbone(file: TensorFile, reading: VitReading = {}): Promise<BackboneWeights> {
  const network = findNetwork(file, reading.network);
  const { preprocessor } = file;
  const preprocessing = preprocessor && parsePreprocessing(preprocessor, `${file.name}/preprocessor_config.json`);
  const read = {
    resnet: () => readResnetNetwork(network),
    xcit: () => readXcitNetwork(network, reading),
    vit: () => readVitNetwork(network, reading),
  };
  return { ...await read[network.family](), batchCounts: await readBatchCounts(network), preprocessing };
}
