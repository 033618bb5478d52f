// An XCiT from a file of weights: its architecture by the shapes, its tensors and running statistics, and a report on both.

import { xcitBufferShapes, type XcitConfig, xcitConfig, xcitShapes } from "../xcit.ts";
import type { NetworkTensors } from "./network.ts";
import {
  compareNetwork,
  describedBy,
  type LoadedTensor,
  readMatched,
  requireComplete,
  VIT_KEY,
  type VitReading,
  type WeightsReport,
} from "./vit_weights.ts";

/** An XCiT in memory. */
export interface XcitWeights {
  /** Its architecture. */
  readonly config: XcitConfig;
  /** By published names: `backbone.*` with the running statistics, and `head.*` if the file has a projection head. */
  readonly weights: ReadonlyMap<string, LoadedTensor>;
  /** What fitted, and what did not. */
  readonly report: WeightsReport;
}

/**
 * Reads an XCiT that was found.
 *
 * @throws {SyntaxError} if tensors are missing, or are of another shape than an XCiT's
 */
export async function readXcitNetwork(network: NetworkTensors, reading: VitReading = {}): Promise<XcitWeights> {
  const config = inferXcit(network, reading.config);
  const report = compareXcit(network, config);
  requireComplete(network.file, report, "XCiT");
  const imageSize = reading.imageSize ?? config.imageSize; // positions are computed, so any will do
  return { config: { ...config, imageSize }, weights: await readMatched(network, report), report };
}

/** Width of the published networks whose class attention normalises [CLS] alone. */
const NANO_WIDTH = 128;

/**
 * Architecture by the shapes; heads are among them, one temperature each.
 *
 * @throws {SyntaxError} if shapes contradict each other
 */
export function inferXcit({ file, tensors }: NetworkTensors, given: VitReading["config"] = {}): XcitConfig {
  const shape = (name: string, dimensions: number) => {
    const found = tensors.get(`backbone.${name}`)?.shape;
    if (found?.length !== dimensions || found.includes(0)) {
      throw new SyntaxError(`${file.name}: ${name} is ${found ? `[${found}]` : "missing"}: no XCiT`);
    }
    return found;
  };
  const count = (name: (i: number) => string) => {
    let i = 0;
    while (tensors.has(`backbone.${name(i)}`)) i++;
    return i;
  };
  const embedDim = shape("cls_token", 3)[2], numHeads = shape("blocks.0.attn.temperature", 3)[0];
  const stem = count((i) => `patch_embed.proj.${2 * i}.0.weight`);
  if (given.numHeads !== undefined && given.numHeads !== numHeads) {
    throw new RangeError(`${file.name}: has ${numHeads} heads, not ${given.numHeads}: leave --num-heads out`);
  }
  const { layerNormEps } = { ...describedBy(file), ...given };
  const ours = own(file.metadata);
  try {
    return xcitConfig({
      embedDim,
      numHeads,
      patchSize: 2 ** stem,
      inChannels: shape("patch_embed.proj.0.0.weight", 4)[1],
      depth: count((i) => `blocks.${i}.attn.proj.weight`),
      classDepth: count((i) => `cls_attn_blocks.${i}.attn.proj.weight`),
      mlpRatio: shape("blocks.0.mlp.fc1.weight", 2)[0] / embedDim,
      qkvBias: tensors.has("backbone.blocks.0.attn.qkv.bias"),
      tokensNorm: ours.tokensNorm ?? embedDim !== NANO_WIDTH,
      ...(layerNormEps === undefined ? {} : { layerNormEps }),
      ...(ours.imageSize === undefined ? {} : { imageSize: ours.imageSize }),
    });
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new SyntaxError(`${file.name}: is no XCiT: ${error.message}`);
  }
}

/** What our own files say that no shape does. */
function own(metadata: Readonly<Record<string, string>>): { imageSize?: number; tokensNorm?: boolean } {
  try {
    const { imageSize, tokensNorm } = JSON.parse(metadata[VIT_KEY] ?? "{}");
    return {
      ...(Number.isSafeInteger(imageSize) && imageSize > 0 ? { imageSize } : {}),
      ...(typeof tokensNorm === "boolean" ? { tokensNorm } : {}),
    };
  } catch {
    return {}; // not ours after all
  }
}

/** Holds the network's tensors against what its architecture needs, running statistics among them. */
export function compareXcit(network: NetworkTensors, config: XcitConfig): WeightsReport {
  return compareNetwork(network, [...xcitShapes(config), ...xcitBufferShapes(config)]);
}
