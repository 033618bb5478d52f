// A network from a safetensors file: our checkpoints, the published backbones, and files with the usual prefixes.

import {
  type ByteSource,
  openFileSource,
  readFloats,
  readSafetensorsHeader,
  type SafetensorsHeader,
} from "../models/weights/safetensors.ts";
import { type VitConfig, vitConfig } from "../models/vit.ts";
import { architectureOf } from "./config_check.ts";
import { readTrainingState } from "./checkpoint.ts";

/** Which of the two networks of a checkpoint. */
export type NetworkName = "teacher" | "student";

/** Weights by their names inside the network: `backbone.*`, and `head.*` if the file has a head. */
export interface LoadedWeights {
  readonly weights: ReadonlyMap<string, { readonly shape: readonly number[]; readonly data: Float32Array }>;
  /** Architecture of the backbone, from the shapes. */
  readonly backbone: VitConfig;
  readonly path: string;
}

// Tried in this order; the first that leads to a class token wins. Wrappers of other tools leave these names.
const PREFIXES = (network: NetworkName) => [
  `${network}.`,
  `${network}.module.`,
  "module.",
  "",
  "backbone.", // of a file that calls the backbone so, without a head
];

/**
 * Reads a network.
 *
 * @param network of a checkpoint with two
 * @throws {SyntaxError} if the file is damaged or holds no Vision Transformer
 * @throws {RangeError} if there is no such file
 */
export async function loadWeights(path: string, network: NetworkName = "teacher"): Promise<LoadedWeights> {
  const source = await openFileSource(path).catch((error) => {
    throw error instanceof Deno.errors.NotFound ? new RangeError(`weights ${path}: there is no such file`) : error;
  });
  try {
    const header = await readSafetensorsHeader(source);
    const weights = await readNetwork(source, header, network);
    return { weights, backbone: await backboneOf(source, header, weights), path };
  } finally {
    source.close!();
  }
}

async function readNetwork(source: ByteSource, { tensors }: SafetensorsHeader, network: NetworkName) {
  for (const prefix of PREFIXES(network)) {
    const hasBackbone = tensors.has(`${prefix}backbone.cls_token`);
    if (!hasBackbone && !tensors.has(`${prefix}cls_token`)) continue;
    const weights = new Map<string, { shape: readonly number[]; data: Float32Array }>();
    for (const [name, record] of tensors) {
      if (!name.startsWith(prefix)) continue;
      const inside = hasBackbone ? name.slice(prefix.length) : `backbone.${name.slice(prefix.length)}`;
      if (!inside.startsWith("backbone.") && !inside.startsWith("head.")) continue;
      weights.set(inside, { shape: record.shape, data: await readFloats(source, record) });
    }
    return weights;
  }
  throw new SyntaxError(
    `${source.name}: holds no Vision Transformer: no cls_token among its ${tensors.size} tensors`,
  );
}

/** Heads of a transformer are not to be seen in its shapes; the published ones are 64 wide. */
const HEAD_WIDTH = 64;

async function backboneOf(
  source: ByteSource,
  { metadata }: SafetensorsHeader,
  weights: LoadedWeights["weights"],
): Promise<VitConfig> {
  const shape = (name: string, length: number) => {
    const found = weights.get(`backbone.${name}`)?.shape;
    if (found?.length !== length) {
      throw new SyntaxError(`${source.name}: backbone.${name} is ${found ? `[${found}]` : "missing"}`);
    }
    return found;
  };
  const [embedDim, inChannels, patchSize] = shape("patch_embed.proj.weight", 4);
  const side = Math.sqrt(shape("pos_embed", 3)[1] - 1);
  if (!Number.isInteger(side)) throw new SyntaxError(`${source.name}: backbone.pos_embed is not for a square grid`);
  let depth = 0;
  while (weights.has(`backbone.blocks.${depth}.attn.proj.weight`)) depth++;
  const ours = metadata["denodino.state"] !== undefined ? (await readTrainingState(source.name)).config : undefined;
  const numHeads = ours ? architectureOf(ours).numHeads : Math.max(1, Math.round(embedDim / HEAD_WIDTH));
  return vitConfig({
    embedDim,
    inChannels,
    patchSize,
    depth,
    numHeads,
    imageSize: side * patchSize,
    mlpRatio: shape("blocks.0.mlp.fc1.weight", 2)[0] / embedDim,
    qkvBias: weights.has("backbone.blocks.0.attn.qkv.bias"),
    ...ours ? { layerNormEps: ours.layerNormEps } : {},
  });
}
