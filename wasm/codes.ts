// Numbers both sides agree on: what a step of the op list does, and where the control block keeps what.
// This file is compiled twice, as TypeScript and as AssemblyScript.

/** What a step computes; the AssemblyScript function of the same name does it. */
export enum Code {
  add,
  copy,
  gelu,
  geluBackward,
  scaleRows,
  columnSum,
  sum,
  pack,
  matmul,
  layerNorm,
  layerNormBackward,
  sumPartials,
  l2Normalize,
  l2NormalizeBackward,
  weightNorm,
  weightNormBackward,
  batchNormPartial,
  batchNormStats,
  batchNorm,
  batchNormBackwardPartial,
  batchNormBackwardSums,
  batchNormBackward,
  batchNormMoments,
  attention,
  attentionBackward,
  attentionProbs,
  patchify,
  unpatchify,
  assembleTokens,
  assembleTokensBackward,
  sumImages,
  resample,
  gatherRows,
  scatterRows,
  centeredSoftmax,
  dinoLoss,
  centerUpdate,
  cutPieces,
  gradientNorms,
  reduceNorms,
  optimizerUpdate,
  ema,
  checkFinite,
  record,
  depthwiseConv,
  depthwiseConvWeightGradient,
  layerScale,
  layerScaleBackward,
  crossCovariance,
  crossCovarianceBackward,
  topK,
  augment,
  im2col,
  col2im,
  tapsBehind,
  tapsBefore,
  relu,
  reluBackward,
  maxPool,
  maxPoolBackward,
  averagePool,
  averagePoolBackward,
}

/** Byte offsets inside a step. */
export enum StepField {
  code = 0,
  chunks = 4,
  next = 8,
  flags = 12,
  arguments = 16,
  bytes = 192,
}

/** Bits of a step's flags. */
export enum StepFlag {
  /** Only the first thread works. */
  solo = 1,
  /** All threads meet after this step. */
  barrier = 2,
}

/** Byte offsets inside the control block; what threads spin on has a cache line of its own. */
export enum Control {
  /** Counts commands; workers wait for it to change. */
  command = 0,
  /** 0: run the list; 1: leave; 2: time micro-kernels into `times`. */
  action = 64,
  list = 68,
  steps = 72,
  threads = 76,
  scratch = 80,
  scratchBytes = 84,
  tileRows = 88,
  tileColumns = 92,
  /** Where to write f64 milliseconds after each step; 0: nowhere. */
  times = 96,
  /** Counts commands done; the host waits for it to change. */
  done = 128,
  arrived = 192,
  released = 256,
  /** Workers that have left the last barrier of a command. */
  left = 320,
  zeros = 384,
  constants = 640,
  bytes = 832,
}
