// The WGSL files as text, under their names: the only form that works from disk, over HTTP and inside a binary.
import type { Kernel, SourceFile } from "../shader.ts";
import add from "./add.wgsl" with { type: "text" };
import addPart from "./add_part.wgsl" with { type: "text" };
import assembleTokens from "./assemble_tokens.wgsl" with { type: "text" };
import assembleTokensBackward from "./assemble_tokens_backward.wgsl" with { type: "text" };
import attentionDelta from "./attention_delta.wgsl" with { type: "text" };
import attentionProbs from "./attention_probs.wgsl" with { type: "text" };
import averagePool from "./average_pool.wgsl" with { type: "text" };
import averagePoolBackward from "./average_pool_backward.wgsl" with { type: "text" };
import batchNorm from "./batch_norm.wgsl" with { type: "text" };
import batchNormBackward from "./batch_norm_backward.wgsl" with { type: "text" };
import batchNormBackwardPartial from "./batch_norm_backward_partial.wgsl" with { type: "text" };
import batchNormMoments from "./batch_norm_moments.wgsl" with { type: "text" };
import batchNormPartial from "./batch_norm_partial.wgsl" with { type: "text" };
import batchNormStats from "./batch_norm_stats.wgsl" with { type: "text" };
import centerUpdate from "./center_update.wgsl" with { type: "text" };
import centeredSoftmax from "./centered_softmax.wgsl" with { type: "text" };
import checkFinite from "./check_finite.wgsl" with { type: "text" };
import col2im from "./col2im.wgsl" with { type: "text" };
import columnSum from "./column_sum.wgsl" with { type: "text" };
import clearColumns from "./clear_columns.wgsl" with { type: "text" };
import convert from "./convert.wgsl" with { type: "text" };
import copyColumns from "./copy_columns.wgsl" with { type: "text" };
import copy from "./copy.wgsl" with { type: "text" };
import covarianceApply from "./covariance_apply.wgsl" with { type: "text" };
import covarianceGradient from "./covariance_gradient.wgsl" with { type: "text" };
import covarianceProbs from "./covariance_probs.wgsl" with { type: "text" };
import covarianceProducts from "./covariance_products.wgsl" with { type: "text" };
import covarianceScores from "./covariance_scores.wgsl" with { type: "text" };
import covarianceShares from "./covariance_shares.wgsl" with { type: "text" };
import depthwiseConv from "./depthwise_conv.wgsl" with { type: "text" };
import depthwiseConvWeights from "./depthwise_conv_weights.wgsl" with { type: "text" };
import layerScale from "./layer_scale.wgsl" with { type: "text" };
import layerScaleBackward from "./layer_scale_backward.wgsl" with { type: "text" };
import layerScaleGamma from "./layer_scale_gamma.wgsl" with { type: "text" };
import dinoLoss from "./dino_loss.wgsl" with { type: "text" };
import ema from "./ema.wgsl" with { type: "text" };
import epilogue from "./epilogue.wgsl" with { type: "text" };
import epilogueSlots from "./epilogue_slots.wgsl" with { type: "text" };
import gatherRows from "./gather_rows.wgsl" with { type: "text" };
import gelu from "./gelu.wgsl" with { type: "text" };
import geluBackward from "./gelu_backward.wgsl" with { type: "text" };
import gradientNorms from "./gradient_norms.wgsl" with { type: "text" };
import gradientNormsTotal from "./gradient_norms_total.wgsl" with { type: "text" };
import grid from "./grid.wgsl" with { type: "text" };
import im2col from "./im2col.wgsl" with { type: "text" };
import joinedMoments from "./joined_moments.wgsl" with { type: "text" };
import l2Normalize from "./l2_normalize.wgsl" with { type: "text" };
import l2NormalizeBackward from "./l2_normalize_backward.wgsl" with { type: "text" };
import layerNorm from "./layer_norm.wgsl" with { type: "text" };
import layerNormBackward from "./layer_norm_backward.wgsl" with { type: "text" };
import math from "./math.wgsl" with { type: "text" };
import matmulSplitSum from "./matmul_split_sum.wgsl" with { type: "text" };
import maxPool from "./max_pool.wgsl" with { type: "text" };
import maxPoolBackward from "./max_pool_backward.wgsl" with { type: "text" };
import normalizeRows from "./normalize_rows.wgsl" with { type: "text" };
import normalized from "./normalized.wgsl" with { type: "text" };
import optimizerPrepare from "./optimizer_prepare.wgsl" with { type: "text" };
import optimizerUpdate from "./optimizer_update.wgsl" with { type: "text" };
import patchify from "./patchify.wgsl" with { type: "text" };
import record from "./record.wgsl" with { type: "text" };
import relu from "./relu.wgsl" with { type: "text" };
import reluBackward from "./relu_backward.wgsl" with { type: "text" };
import resample from "./resample.wgsl" with { type: "text" };
import rows from "./rows.wgsl" with { type: "text" };
import scalar from "./scalar.wgsl" with { type: "text" };
import scaleRows from "./scale_rows.wgsl" with { type: "text" };
import scatterRows from "./scatter_rows.wgsl" with { type: "text" };
import scoreGradient from "./score_gradient.wgsl" with { type: "text" };
import softmaxRows from "./softmax_rows.wgsl" with { type: "text" };
import sum from "./sum.wgsl" with { type: "text" };
import tapsBefore from "./taps_before.wgsl" with { type: "text" };
import tapsBehind from "./taps_behind.wgsl" with { type: "text" };
import topK from "./top_k.wgsl" with { type: "text" };
import topKRank from "./top_k_rank.wgsl" with { type: "text" };
import unpatchify from "./unpatchify.wgsl" with { type: "text" };
import vec4 from "./vec4.wgsl" with { type: "text" };
import weightNormBackward from "./weight_norm_backward.wgsl" with { type: "text" };

const FILES = {
  add,
  add_part: addPart,
  assemble_tokens: assembleTokens,
  assemble_tokens_backward: assembleTokensBackward,
  attention_delta: attentionDelta,
  attention_probs: attentionProbs,
  average_pool: averagePool,
  average_pool_backward: averagePoolBackward,
  batch_norm: batchNorm,
  batch_norm_backward: batchNormBackward,
  batch_norm_backward_partial: batchNormBackwardPartial,
  batch_norm_moments: batchNormMoments,
  batch_norm_partial: batchNormPartial,
  batch_norm_stats: batchNormStats,
  center_update: centerUpdate,
  centered_softmax: centeredSoftmax,
  check_finite: checkFinite,
  clear_columns: clearColumns,
  col2im,
  column_sum: columnSum,
  convert,
  copy,
  copy_columns: copyColumns,
  covariance_apply: covarianceApply,
  covariance_gradient: covarianceGradient,
  covariance_probs: covarianceProbs,
  covariance_products: covarianceProducts,
  covariance_scores: covarianceScores,
  covariance_shares: covarianceShares,
  depthwise_conv: depthwiseConv,
  depthwise_conv_weights: depthwiseConvWeights,
  layer_scale: layerScale,
  layer_scale_backward: layerScaleBackward,
  layer_scale_gamma: layerScaleGamma,
  dino_loss: dinoLoss,
  ema,
  epilogue,
  epilogue_slots: epilogueSlots,
  gather_rows: gatherRows,
  gelu,
  gelu_backward: geluBackward,
  gradient_norms: gradientNorms,
  gradient_norms_total: gradientNormsTotal,
  grid,
  im2col,
  joined_moments: joinedMoments,
  l2_normalize: l2Normalize,
  l2_normalize_backward: l2NormalizeBackward,
  layer_norm: layerNorm,
  layer_norm_backward: layerNormBackward,
  math,
  matmul_split_sum: matmulSplitSum,
  max_pool: maxPool,
  max_pool_backward: maxPoolBackward,
  normalize_rows: normalizeRows,
  normalized,
  optimizer_prepare: optimizerPrepare,
  optimizer_update: optimizerUpdate,
  patchify,
  record,
  relu,
  relu_backward: reluBackward,
  resample,
  rows,
  scalar,
  scale_rows: scaleRows,
  scatter_rows: scatterRows,
  score_gradient: scoreGradient,
  softmax_rows: softmaxRows,
  sum,
  taps_before: tapsBefore,
  taps_behind: tapsBehind,
  top_k: topK,
  top_k_rank: topKRank,
  unpatchify,
  vec4,
  weight_norm_backward: weightNormBackward,
};

/** A file of this folder, without its extension. */
export type KernelFile = keyof typeof FILES;

/** A file as a part of a kernel. */
export function source(name: KernelFile): SourceFile {
  return { file: `gpu/kernels/${name}.wgsl`, text: FILES[name] };
}

/** What a kernel is put together from. */
export interface KernelParts {
  /** Floats a thread handles at a time: `V` is f32 or vec4f. */
  readonly width?: 1 | 4;
  /** Files to put in front, besides the grid and the vector type. */
  readonly with?: readonly KernelFile[];
  readonly constants?: Readonly<Record<string, number>>;
}

/** A kernel whose main file is `name`. */
export function kernel(name: KernelFile, { width = 1, with: parts = [], constants }: KernelParts = {}): Kernel {
  const sources = [width === 4 ? "vec4" : "scalar", "grid", ...parts, name] as const;
  return { name: width === 4 ? `${name}/vec4` : name, sources: sources.map((s) => source(s)), constants };
}
