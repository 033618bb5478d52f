// The functions that write operations into a program, and the types of the operations, for whoever imports the library.
export {
  attention,
  type AttentionAttrs,
  type AttentionBackwardOp,
  type AttentionOp,
  attentionProbs,
  type AttentionProbsOp,
} from "./attention.ts";
export {
  augment,
  type AugmentOp,
  type AugmentTensors,
  augmentToLevels,
  IMAGENET_NORMALIZATION,
  type Normalization,
  normalizedLevels,
  pixelBuffer,
  pixelRoom,
} from "./augment.ts";
export { batchNorm, type BatchNormBackwardOp, type BatchNormOp, type BatchNormTensors } from "./batch_norm.ts";
export type { BatchNormMomentsOp, BatchNormSumsOp } from "./batch_norm_statistics.ts";
export {
  allGather,
  type AllGatherOp,
  type AllReduceOp,
  type CollectiveOp,
  emitAllReduce,
  isCollective,
} from "./collective.ts";
export {
  conv2d,
  type Conv2dInputGradientOp,
  type Conv2dOp,
  type Conv2dWeightGradientOp,
  type Grid,
  type Stride,
} from "./convolution.ts";
export { depthwiseConv, type DepthwiseConvOp, type DepthwiseConvWeightGradientOp } from "./depthwise.ts";
export { layerScale, type LayerScaleBackwardOp, type LayerScaleOp } from "./layer_scale.ts";
export {
  crossCovariance,
  type CrossCovarianceAttrs,
  type CrossCovarianceBackwardOp,
  type CrossCovarianceOp,
} from "./cross_covariance.ts";
export {
  averagePool,
  type AveragePoolBackwardOp,
  type AveragePoolOp,
  maxPool,
  type MaxPoolBackwardOp,
  type MaxPoolOp,
  type Window,
} from "./pooling.ts";
export { relu, type ReluBackwardOp, type ReluOp } from "./relu.ts";
export {
  centeredSoftmax,
  type CenteredSoftmaxOp,
  type CenterUpdateOp,
  dinoLoss,
  type DinoLossOp,
  lossTerms,
} from "./dino_loss.ts";
export {
  add,
  type AddOp,
  type ColumnSumOp,
  type CopyOp,
  emitAddInto,
  emitColumnSum,
  emitCopy,
  emitSum,
  gelu,
  type GeluBackwardOp,
  type GeluOp,
  type ScaleRowsOp,
  type SumOp,
} from "./elementwise.ts";
export { linear, matmul, type MatmulOp, type Prologue } from "./matmul.ts";
export { type Selected, topK, type TopKOp, type TopKOptions } from "./neighbours.ts";
export {
  l2Normalize,
  type L2NormalizeBackwardOp,
  type L2NormalizeOp,
  layerNorm,
  type LayerNormBackwardOp,
  type LayerNormOp,
  weightNorm,
  type WeightNormBackwardOp,
  type WeightNormOp,
} from "./norm.ts";
export {
  type CheckFiniteOp,
  type EmaOp,
  gradientNorms,
  type GradientNormsOp,
  GROUP,
  GROUP_COLUMNS,
  NORM_COLUMNS,
  optimizerUpdate,
  type OptimizerUpdateOp,
  type RecordOp,
  segmentTable,
} from "./optimizer.ts";
export {
  assembleTokens,
  type AssembleTokensBackwardOp,
  type AssembleTokensOp,
  type AxisWeights,
  gatherRows,
  type GatherRowsOp,
  patchify,
  type PatchifyOp,
  resample,
  type ResampleOp,
  type ScatterRowsOp,
  type UnpatchifyOp,
} from "./tokens.ts";
