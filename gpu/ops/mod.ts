// Which function lowers which kind of operation.
import type { Op, OpKind, OpOf } from "../../models/graph/ops/mod.ts";
import type { Lowering } from "../lowering.ts";
import * as attention from "./attention.ts";
import { lowerAugment } from "./augment.ts";
import * as batchNorm from "./batch_norm.ts";
import { lowerCopy } from "./copy.ts";
import * as convolution from "./convolution.ts";
import * as elementwise from "./elementwise.ts";
import * as loss from "./loss.ts";
import { lowerMatmul } from "./matmul.ts";
import { lowerTopK } from "./neighbours.ts";
import * as norm from "./norm.ts";
import * as optimizer from "./optimizer.ts";
import * as pooling from "./pooling.ts";
import * as tokens from "./tokens.ts";
import * as xcit from "./xcit.ts";

type Lowerer<K extends OpKind> = (lowering: Lowering, op: OpOf<K>) => void;

const lowerers: { [K in OpKind]?: Lowerer<K> } = {
  matmul: lowerMatmul,
  add: elementwise.lowerAdd,
  copy: lowerCopy,
  gelu: elementwise.lowerGelu,
  geluBackward: elementwise.lowerGeluBackward,
  scaleRows: elementwise.lowerScaleRows,
  columnSum: elementwise.lowerColumnSum,
  sum: elementwise.lowerSum,
  layerNorm: norm.lowerLayerNorm,
  layerNormBackward: norm.lowerLayerNormBackward,
  l2Normalize: norm.lowerL2Normalize,
  l2NormalizeBackward: norm.lowerL2NormalizeBackward,
  weightNorm: norm.lowerWeightNorm,
  weightNormBackward: norm.lowerWeightNormBackward,
  batchNorm: batchNorm.lowerBatchNorm,
  batchNormBackward: batchNorm.lowerBatchNormBackward,
  batchNormMoments: batchNorm.lowerBatchNormMoments,
  batchNormSums: batchNorm.lowerBatchNormSums,
  // No dispatch: the executable stops there, and the host carries the operand to the other ranks.
  allReduce: () => {},
  allGather: () => {},
  attention: attention.lowerAttention,
  attentionBackward: attention.lowerAttentionBackward,
  attentionProbs: attention.lowerAttentionProbs,
  patchify: tokens.lowerPatchify,
  unpatchify: tokens.lowerUnpatchify,
  assembleTokens: tokens.lowerAssembleTokens,
  assembleTokensBackward: tokens.lowerAssembleTokensBackward,
  resample: tokens.lowerResample,
  gatherRows: tokens.lowerGatherRows,
  scatterRows: tokens.lowerScatterRows,
  centeredSoftmax: loss.lowerCenteredSoftmax,
  dinoLoss: loss.lowerDinoLoss,
  centerUpdate: loss.lowerCenterUpdate,
  gradientNorms: optimizer.lowerGradientNorms,
  optimizerUpdate: optimizer.lowerOptimizerUpdate,
  ema: elementwise.lowerEma,
  checkFinite: optimizer.lowerCheckFinite,
  record: optimizer.lowerRecord,
  conv2d: convolution.lowerConv2d,
  conv2dInputGradient: convolution.lowerConv2dInputGradient,
  conv2dWeightGradient: convolution.lowerConv2dWeightGradient,
  relu: pooling.lowerRelu,
  reluBackward: pooling.lowerReluBackward,
  maxPool: pooling.lowerMaxPool,
  maxPoolBackward: pooling.lowerMaxPoolBackward,
  averagePool: pooling.lowerAveragePool,
  averagePoolBackward: pooling.lowerAveragePoolBackward,
  depthwiseConv: xcit.lowerDepthwiseConv,
  depthwiseConvWeightGradient: xcit.lowerDepthwiseConvWeightGradient,
  layerScale: xcit.lowerLayerScale,
  layerScaleBackward: xcit.lowerLayerScaleBackward,
  crossCovariance: xcit.lowerCrossCovariance,
  crossCovarianceBackward: xcit.lowerCrossCovarianceBackward,
  topK: lowerTopK,
  augment: lowerAugment,
};

/** Appends the dispatches of one operation. Throws {TypeError} for a kind without kernels. */
export function lowerOp(lowering: Lowering, op: Op): void {
  const lowerer = lowerers[op.kind] as Lowerer<OpKind> | undefined;
  if (!lowerer) throw new TypeError(`webgpu: operation ${op.kind} has no kernels here; use the SIMD backend for it`);
  lowerer(lowering, op);
}
