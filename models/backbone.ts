// Every network that DINO trains, behind one door: its parameters by name, and the features of crops.
import { gatherRows } from "./graph/ops/tokens.ts";
import type { Program } from "./graph/program.ts";
import type { Tensor } from "./graph/tensor.ts";
import { resnet, resnetBlockOf, resnetBufferShapes, type ResnetConfig, resnetShapes } from "./resnet.ts";
import { xcit, xcitBufferShapes, type XcitConfig, xcitGrid, xcitShapes } from "./xcit.ts";
import { finalNorm, type Parameters, type PatchBatch, vit, type VitConfig, vitShapes } from "./vit.ts";

/** Any backbone. A Vision Transformer has no `family`; the others name theirs. */
export type BackboneConfig = VitConfig | ResnetConfig | XcitConfig;

/** Whether a backbone is a ResNet. */
export function isResnetConfig(c: BackboneConfig): c is ResnetConfig {
  return "family" in c && c.family === "resnet";
}

/** Whether a backbone is an XCiT. */
export function isXcitConfig(c: BackboneConfig): c is XcitConfig {
  return "family" in c && c.family === "xcit";
}

/**
 * Asserts that a backbone is a Vision Transformer.
 *
 * @param wanted that others cannot give, for the message
 * @throws {TypeError} otherwise
 */
export function requireVit(c: BackboneConfig, wanted: string): asserts c is VitConfig {
  if (!("family" in c)) return;
  throw new TypeError(
    `${wanted}: to be had of Vision Transformers only, this network is ${isResnetConfig(c) ? "a ResNet" : "an XCiT"}`,
  );
}

/**
 * Asserts that a backbone has tokens that [CLS] attends to: a Vision Transformer or an XCiT.
 *
 * @param wanted that others cannot give, for the message
 * @throws {TypeError} otherwise
 */
export function requireTokens(c: BackboneConfig, wanted: string): asserts c is VitConfig | XcitConfig {
  if (isResnetConfig(c)) throw new TypeError(`${wanted}: a ResNet has none: choose a Vision Transformer or an XCiT`);
}

/** Crops of one size, and which residual branches of theirs are dropped. */
export interface PatchGroup extends PatchBatch {
  /** Factors of residual branch `branch` of block i, each [images]; undefined keeps the branch. */
  readonly dropPath?: (block: number, branch: number) => Tensor | undefined;
}

/** How features are computed. */
export interface FeatureMode {
  /** Batch norms take the statistics of the crops, and move their running ones; otherwise they use those. */
  readonly training: boolean;
}

/** Names and shapes of all parameters, in the order of the published checkpoints. */
export function backboneShapes(c: BackboneConfig): [name: string, shape: number[]][] {
  return isResnetConfig(c) ? resnetShapes(c) : isXcitConfig(c) ? xcitShapes(c) : vitShapes(c);
}

/** Names and shapes of the running statistics of batch norms: they follow no optimizer and no EMA. None in a ViT. */
export function backboneBufferShapes(c: BackboneConfig): [name: string, shape: number[]][] {
  return isResnetConfig(c) ? resnetBufferShapes(c) : isXcitConfig(c) ? xcitBufferShapes(c) : [];
}

/**
 * Side in pixels of the squares that crops are cut into for this backbone: a ViT's patches; 1 for networks that begin with a
 * convolution, to whom crops are then images with channels last.
 */
export function inputPatch(c: BackboneConfig): number {
  return "family" in c ? 1 : c.patchSize;
}

/** What the sides of crops should be multiples of, in pixels. */
export function cropMultiple(c: BackboneConfig): number {
  return isResnetConfig(c) ? 1 : c.patchSize;
}

/** Rows and columns of what attention maps are made of: tokens, or a ResNet's pixels. */
export function gridOf(c: BackboneConfig, height: number, width: number): [rows: number, columns: number] {
  if (isXcitConfig(c)) return xcitGrid(c, height, width);
  const step = cropMultiple(c);
  return [Math.floor(height / step), Math.floor(width / step)];
}

/** Residual branches that drop path may skip: probability by block for a rate, and how many branches each block has. */
export function droppedBranches(c: BackboneConfig, rate: number): { probabilities: number[]; branches: number } {
  if (isResnetConfig(c)) return { probabilities: [], branches: 0 }; // as torchvision's
  const { depth } = c;
  if (isXcitConfig(c)) return { probabilities: Array(depth).fill(rate), branches: 3 }; // the same in every block
  const probabilities = Array.from({ length: depth }, (_, block) => depth > 1 ? rate * block / (depth - 1) : 0);
  return { probabilities, branches: 2 };
}

/** How many layers {@linkcode layerOf} tells apart between the embeddings and what follows the backbone. */
export function layerCount(c: BackboneConfig): number {
  return isResnetConfig(c) ? c.layers.reduce((sum, blocks) => sum + blocks, 0) : c.depth;
}

/** Which layer a parameter belongs to, for rates that fall from layer to layer: 0 the embeddings, layerCount + 1 what is behind all. */
export function layerOf(c: BackboneConfig, name: string): number {
  if (isResnetConfig(c)) return resnetBlockOf(c, name);
  const block = /^blocks\.(\d+)\./.exec(name);
  if (block) return 1 + Number(block[1]);
  return /^(cls_token|pos_embed|register_tokens|patch_embed\.|pos_embeder\.)/.test(name) ? 0 : layerCount(c) + 1;
}

/**
 * Features of crops, one row an image in the order of the groups: [CLS] after the final norm, or the average of a
 * convolutional network's last map. Each group of crops of one size is one pass.
 *
 * @returns [rows, embedDim]
 */
export function backboneFeatures(
  p: Program,
  params: Parameters,
  c: BackboneConfig,
  groups: readonly PatchGroup[],
  mode: FeatureMode,
): Tensor {
  if (isResnetConfig(c)) {
    const pooled = groups.map((group) => resnet(p, params, c, group, mode).features); // [images, embedDim]
    return concatRows(p, pooled, c.embedDim);
  }
  if (isXcitConfig(c)) {
    const made = groups.map((group) => xcit(p, params, c, group, { ...mode, dropPath: group.dropPath }));
    return concatRows(p, made, c.embedDim);
  }
  const tokens = groups.map((group) =>
    vit(p, params, c, group, { clsOnly: true, dropPath: group.dropPath }).blocks.at(-1)! // [images, D]
  );
  return finalNorm(p, params, c, concatRows(p, tokens, c.embedDim));
}

/** Tensors [rows, columns] one under the other. */
function concatRows(p: Program, parts: readonly Tensor[], columns: number): Tensor {
  if (parts.length === 1) return parts[0];
  const total = parts.reduce((sum, part) => sum + part.shape[0], 0);
  const all = p.activation("cls", [total, columns]);
  let target = 0;
  for (const part of parts) {
    gatherRows(p, part, { count: part.shape[0], target }, all);
    target += part.shape[0];
  }
  return all;
}
