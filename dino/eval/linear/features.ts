// The features a linear classifier is trained on: [CLS] of the last blocks, and the average of the patch tokens.

import { type Program, require } from "../../../models/graph/program.ts";
import {
  type AxisWeights,
  gatherRows,
  patchify,
  resample,
  type ScatterRowsOp,
} from "../../../models/graph/ops/tokens.ts";
import { reshape, type Tensor } from "../../../models/graph/tensor.ts";
import { type BackboneConfig, backboneFeatures, type PatchGroup } from "../../../models/backbone.ts";
import { finalNorm, type Parameters, patchesFrom, vit, type VitConfig } from "../../../models/vit.ts";

/** How the average of the patch tokens joins the [CLS] features. */
export type PatchAverage =
  | "none"
  /** c₀ a₀ c₁ a₁ …: the reference's order, which its published classifiers expect; one block only. */
  | "interleaved"
  /** All of [CLS], then the average of the last block: any number of blocks. */
  | "concatenated";

/** Which features. */
export interface LinearFeatureOptions {
  /** Blocks whose [CLS] is used, counted from the last: 4 for ViT-S, 1 for ViT-B in the reference. */
  readonly lastBlocks: number;
  /** Whether and how the mean patch token joins. */
  readonly patchAverage: PatchAverage;
}

/** Features of one image: lastBlocks · D, and D more with the patch average. */
export function linearFeatureWidth(embedDim: number, { lastBlocks, patchAverage }: LinearFeatureOptions): number {
  return embedDim * (lastBlocks + (patchAverage === "none" ? 0 : 1));
}

/** The network's own output: [CLS] of the last block, or the average of a convolutional network's last map. */
export const OWN_FEATURES: LinearFeatureOptions = { lastBlocks: 1, patchAverage: "none" };

/**
 * Emits features of crops by a network that stays as it is, [images, {@linkcode linearFeatureWidth}].
 *
 * @param features default the network's own output, which is the only one of networks that are no Vision Transformers
 * @throws {RangeError} if there are no such features
 */
export function frozenFeatures(
  p: Program,
  params: Parameters,
  config: BackboneConfig,
  crops: PatchGroup,
  features: LinearFeatureOptions = OWN_FEATURES,
): Tensor {
  if (features.lastBlocks === 1 && features.patchAverage === "none") {
    return backboneFeatures(p, params, config, [crops], { training: false });
  }
  requireBlocks(config, features);
  return linearFeatures(p, params, config, vit(p, params, config, crops), crops.images, features);
}

/**
 * Emits the features of each image, [images, {@linkcode linearFeatureWidth}], every block through the final norm.
 *
 * @param blocks outputs of all blocks, [images · tokens, D] each
 * @throws {RangeError} if there are not so many blocks, or an interleaved average of more than one is asked for
 */
export function linearFeatures(
  p: Program,
  params: Parameters,
  config: VitConfig,
  { blocks, tokens }: { blocks: readonly Tensor[]; tokens: number },
  images: number,
  { lastBlocks, patchAverage }: LinearFeatureOptions,
): Tensor {
  require(
    Number.isInteger(lastBlocks) && lastBlocks >= 1 && lastBlocks <= blocks.length,
    "linear features",
    () => `the last ${lastBlocks} of ${blocks.length} blocks: use 1 … ${blocks.length}`,
  );
  require(
    patchAverage !== "interleaved" || lastBlocks === 1,
    "linear features",
    () => `an interleaved patch average goes with one block, not ${lastBlocks}: use "concatenated"`,
  );
  const parts = blocks.slice(-lastBlocks).map((x) =>
    finalNorm(p, params, config, gatherRows(p, x, { stride: tokens, count: images })) // [images, D]
  );
  if (patchAverage !== "none") {
    const last = finalNorm(p, params, config, blocks.at(-1)!); // [images · tokens, D]
    parts.push(averagePatches(p, last, images, tokens, patchesFrom(config)));
  }
  const beside = concatenateColumns(p, parts, images);
  if (patchAverage !== "interleaved") return beside;
  // Two channels of one row of D pixels, cut into patches of one pixel: that is the transposition [2, D] → [D, 2].
  const D = config.embedDim;
  return reshape(patchify(p, reshape(beside, [images, 2, 1, D]), 1), [images, 2 * D]);
}

/** Mean of the tokens from `first` on, of each image: [images · tokens, D] → [images, D]. */
export function averagePatches(p: Program, x: Tensor, images: number, tokens: number, first = 1): Tensor {
  const mean = new Float64Array(tokens).fill(1 / (tokens - first)).fill(0, 0, first);
  // Seen as a grid of images × tokens, averaging is a resampling to images × 1.
  return resample(p, x, identityAxis(images), { out: 1, in: tokens, weights: mean }, 0);
}

/** Tensors [rows, D] side by side: [rows, parts · D]. */
export function concatenateColumns(p: Program, parts: readonly Tensor[], rows: number): Tensor {
  if (parts.length === 1) return parts[0];
  const D = parts[0].shape.at(-1)!;
  const joined = p.activation("features", [rows * parts.length, D]);
  parts.forEach((y, i) => {
    p.emit<ScatterRowsOp>({
      kind: "scatterRows",
      in: { y },
      out: { x: joined },
      attrs: { start: i, stride: parts.length, count: rows, target: 0, accumulate: i > 0 },
    });
  });
  return reshape(joined, [rows, parts.length * D]);
}

function requireBlocks(
  config: BackboneConfig,
  { lastBlocks, patchAverage }: LinearFeatureOptions,
): asserts config is VitConfig {
  require(
    !("family" in config),
    "features",
    () =>
      `the last ${lastBlocks} blocks, patch average ${patchAverage}, are to be had of Vision Transformers only: use 1 block without it`,
  );
}

function identityAxis(n: number): AxisWeights {
  const weights = new Float64Array(n * n);
  for (let i = 0; i < n; i++) weights[i * n + i] = 1;
  return { out: n, in: n, weights };
}
