// Every operation a program can hold, and the table of their rules.
import type { AddOp, ColumnSumOp, CopyOp, GeluBackwardOp, GeluOp, ScaleRowsOp, SumOp } from "./elementwise.ts";
import { addRule, columnSumRule, copyRule, geluBackwardRule, geluRule, scaleRowsRule, sumRule } from "./elementwise.ts";
import { type MatmulOp, matmulRule } from "./matmul.ts";
import * as norm from "./norm.ts";
import { type BatchNormBackwardOp, batchNormBackwardRule, type BatchNormOp, batchNormRule } from "./batch_norm.ts";
import * as statistics from "./batch_norm_statistics.ts";
import * as collective from "./collective.ts";
import * as attention from "./attention.ts";
import * as covariance from "./cross_covariance.ts";
import * as depthwise from "./depthwise.ts";
import { type LayerScaleBackwardOp, layerScaleBackwardRule, type LayerScaleOp, layerScaleRule } from "./layer_scale.ts";
import * as tokens from "./tokens.ts";
import * as loss from "./dino_loss.ts";
import * as optimizer from "./optimizer.ts";
import { type TopKOp, topKRule } from "./neighbours.ts";
import { type AugmentOp, augmentRule } from "./augment.ts";
import * as convolution from "./convolution.ts";
import * as pooling from "./pooling.ts";
import { type ReluBackwardOp, reluBackwardRule, type ReluOp, reluRule } from "./relu.ts";
import type { OpRule } from "./rule.ts";

/** Any operation. Backends switch on `kind`. */
export type Op =
  | MatmulOp
  | AddOp
  | CopyOp
  | GeluOp
  | GeluBackwardOp
  | ScaleRowsOp
  | ColumnSumOp
  | SumOp
  | norm.LayerNormOp
  | norm.LayerNormBackwardOp
  | norm.L2NormalizeOp
  | norm.L2NormalizeBackwardOp
  | norm.WeightNormOp
  | norm.WeightNormBackwardOp
  | BatchNormOp
  | BatchNormBackwardOp
  | statistics.BatchNormMomentsOp
  | statistics.BatchNormSumsOp
  | collective.AllReduceOp
  | collective.AllGatherOp
  | attention.AttentionOp
  | attention.AttentionBackwardOp
  | attention.AttentionProbsOp
  | tokens.PatchifyOp
  | tokens.UnpatchifyOp
  | tokens.AssembleTokensOp
  | tokens.AssembleTokensBackwardOp
  | tokens.ResampleOp
  | tokens.GatherRowsOp
  | tokens.ScatterRowsOp
  | loss.CenteredSoftmaxOp
  | loss.DinoLossOp
  | loss.CenterUpdateOp
  | optimizer.GradientNormsOp
  | optimizer.OptimizerUpdateOp
  | optimizer.EmaOp
  | optimizer.CheckFiniteOp
  | optimizer.RecordOp
  | convolution.Conv2dOp
  | convolution.Conv2dInputGradientOp
  | convolution.Conv2dWeightGradientOp
  | depthwise.DepthwiseConvOp
  | depthwise.DepthwiseConvWeightGradientOp
  | LayerScaleOp
  | LayerScaleBackwardOp
  | covariance.CrossCovarianceOp
  | covariance.CrossCovarianceBackwardOp
  | ReluOp
  | ReluBackwardOp
  | pooling.MaxPoolOp
  | pooling.MaxPoolBackwardOp
  | pooling.AveragePoolOp
  | pooling.AveragePoolBackwardOp
  | TopKOp
  | AugmentOp;

/** The names of the operations. */
export type OpKind = Op["kind"];

/** The operation called `K`. */
export type OpOf<K extends OpKind> = Extract<Op, { kind: K }>;

const rules: { [K in OpKind]: OpRule<OpOf<K>> } = {
  matmul: matmulRule,
  add: addRule,
  copy: copyRule,
  gelu: geluRule,
  geluBackward: geluBackwardRule,
  scaleRows: scaleRowsRule,
  columnSum: columnSumRule,
  sum: sumRule,
  layerNorm: norm.layerNormRule,
  layerNormBackward: norm.layerNormBackwardRule,
  l2Normalize: norm.l2NormalizeRule,
  l2NormalizeBackward: norm.l2NormalizeBackwardRule,
  weightNorm: norm.weightNormRule,
  weightNormBackward: norm.weightNormBackwardRule,
  batchNorm: batchNormRule,
  batchNormBackward: batchNormBackwardRule,
  batchNormMoments: statistics.batchNormMomentsRule,
  batchNormSums: statistics.batchNormSumsRule,
  allReduce: collective.allReduceRule,
  allGather: collective.allGatherRule,
  attention: attention.attentionRule,
  attentionBackward: attention.attentionBackwardRule,
  attentionProbs: attention.attentionProbsRule,
  patchify: tokens.patchifyRule,
  unpatchify: tokens.unpatchifyRule,
  assembleTokens: tokens.assembleTokensRule,
  assembleTokensBackward: tokens.assembleTokensBackwardRule,
  resample: tokens.resampleRule,
  gatherRows: tokens.gatherRowsRule,
  scatterRows: tokens.scatterRowsRule,
  centeredSoftmax: loss.centeredSoftmaxRule,
  dinoLoss: loss.dinoLossRule,
  centerUpdate: loss.centerUpdateRule,
  gradientNorms: optimizer.gradientNormsRule,
  optimizerUpdate: optimizer.optimizerUpdateRule,
  ema: optimizer.emaRule,
  checkFinite: optimizer.checkFiniteRule,
  record: optimizer.recordRule,
  conv2d: convolution.conv2dRule,
  conv2dInputGradient: convolution.conv2dInputGradientRule,
  conv2dWeightGradient: convolution.conv2dWeightGradientRule,
  relu: reluRule,
  reluBackward: reluBackwardRule,
  maxPool: pooling.maxPoolRule,
  maxPoolBackward: pooling.maxPoolBackwardRule,
  averagePool: pooling.averagePoolRule,
  averagePoolBackward: pooling.averagePoolBackwardRule,
  depthwiseConv: depthwise.depthwiseConvRule,
  depthwiseConvWeightGradient: depthwise.depthwiseConvWeightGradientRule,
  layerScale: layerScaleRule,
  layerScaleBackward: layerScaleBackwardRule,
  crossCovariance: covariance.crossCovarianceRule,
  crossCovarianceBackward: covariance.crossCovarianceBackwardRule,
  topK: topKRule,
  augment: augmentRule,
};

/** The rules of an operation, whatever its kind. */
export function ruleOf(op: Op): OpRule<Op> {
  return rules[op.kind] as unknown as OpRule<Op>;
}

/** All kinds, for tests that must cover each. */
export const OP_KINDS = Object.keys(rules) as readonly OpKind[];
