// The life of a thread: wait for a command, walk the op list, meet the others after each step.
import { Code, Control, StepField, StepFlag } from "../codes";
import { setContext } from "./context";
import { add, columnSum, copy, gelu, geluBackward, scaleRows, sum, sumPartials } from "./elementwise";
import { matmul, pack } from "./matmul";
import {
  l2Normalize, l2NormalizeBackward, layerNorm, layerNormBackward, weightNorm, weightNormBackward,
} from "./norm";
import {
  batchNorm, batchNormBackward, batchNormBackwardPartial, batchNormBackwardSums, batchNormMoments, batchNormPartial,
  batchNormStats,
} from "./batch_norm";
import { attention, attentionBackward, attentionProbs } from "./attention";
import {
  assembleTokens, assembleTokensBackward, gatherRows, patchify, resample, scatterRows, sumImages, unpatchify,
} from "./tokens";
import { centeredSoftmax, centerUpdate, dinoLoss } from "./loss";
import { checkFinite, cutPieces, ema, gradientNorms, optimizerUpdate, record, reduceNorms } from "./optimizer";
import { crossCovariance, crossCovarianceBackward } from "./cross_covariance";
import { depthwiseConv, depthwiseConvWeightGradient, layerScale, layerScaleBackward } from "./depthwise";
import { topK } from "./neighbours";
import { augment } from "./augment";
import { col2im, im2col, tapsBefore, tapsBehind } from "./convolution";
import { averagePool, averagePoolBackward, maxPool, maxPoolBackward, relu, reluBackward } from "./pooling";

// Milliseconds from the host's clock, for profiles.
@external("env", "now")
declare function now(): f64;

/** Looks before sleeping: some ten microseconds, more than a balanced step leaves between threads. */
const SPINS: i32 = 12000;

/** Serves commands until told to leave. */
export function serve(thread: u32, control: usize): void {
  let seen: i32 = 0;
  for (;;) {
    waitWhile(control + Control.command, seen);
    seen = atomic.load<i32>(control + Control.command);
    const action = load<u32>(control, Control.action);
    const threads = load<u32>(control, Control.threads);
    setContext(
      load<u32>(control, Control.scratch) + thread * load<u32>(control, Control.scratchBytes),
      control + Control.zeros, control + Control.constants, load<u32>(control, Control.tileRows), load<u32>(control, Control.tileColumns),
    );
    if (action == 0) runList(control, thread, threads);
    if (atomic.add<u32>(control + Control.left, 1) == threads - 1) {
      atomic.store<u32>(control + Control.left, 0);
      atomic.store<i32>(control + Control.done, seen);
      atomic.notify(control + Control.done, -1);
    }
    if (action == 1) return;
  }
}

function runList(control: usize, thread: u32, threads: u32): void {
  const count = load<u32>(control, Control.steps), times: usize = load<u32>(control, Control.times);
  let step: usize = load<u32>(control, Control.list);
  // One more than steps: the last is when the list began.
  if (times && thread == 0) store<f64>(times + (<usize>count << 3), now());
  for (let i: u32 = 0; i < count; i++, step += StepField.bytes) {
    const flags = load<u32>(step, StepField.flags), chunks = load<u32>(step, StepField.chunks);
    if (flags & StepFlag.solo) {
      if (thread == 0) for (let c: u32 = 0; c < chunks; c++) execute(step, c);
    } else {
      for (;;) {
        const c = atomic.add<u32>(step + StepField.next, 1);
        if (c >= chunks) break;
        execute(step, c);
      }
    }
    if (flags & StepFlag.barrier) barrier(control, threads, step);
    if (times && thread == 0) store<f64>(times + (<usize>i << 3), now());
  }
}

/** Waits until all threads have come; the last one makes the step's counter ready for the next run. */
function barrier(control: usize, threads: u32, step: usize): void {
  const released = atomic.load<i32>(control + Control.released);
  if (atomic.add<u32>(control + Control.arrived, 1) == threads - 1) {
    atomic.store<u32>(step + StepField.next, 0);
    atomic.store<u32>(control + Control.arrived, 0);
    atomic.store<i32>(control + Control.released, released + 1);
    if (threads > 1) atomic.notify(control + Control.released, -1);
  } else waitWhile(control + Control.released, released);
}

/** Spins, then sleeps, while the word at `address` holds `value`. */
function waitWhile(address: usize, value: i32): void {
  for (let i = 0; i < SPINS; i++) if (atomic.load<i32>(address) != value) return;
  while (atomic.load<i32>(address) == value) atomic.wait<i32>(address, value, -1);
}

/** One chunk of one step, for timing from the host. */
export function execute(step: usize, chunk: u32): void {
  switch (load<u32>(step)) {
    case Code.add:
      add(step, chunk);
      break;
    case Code.copy:
      copy(step, chunk);
      break;
    case Code.gelu:
      gelu(step, chunk);
      break;
    case Code.geluBackward:
      geluBackward(step, chunk);
      break;
    case Code.scaleRows:
      scaleRows(step, chunk);
      break;
    case Code.columnSum:
      columnSum(step, chunk);
      break;
    case Code.sum:
      sum(step, chunk);
      break;
    case Code.pack:
      pack(step, chunk);
      break;
    case Code.matmul:
      matmul(step, chunk);
      break;
    case Code.layerNorm:
      layerNorm(step, chunk);
      break;
    case Code.layerNormBackward:
      layerNormBackward(step, chunk);
      break;
    case Code.sumPartials:
      sumPartials(step, chunk);
      break;
    case Code.l2Normalize:
      l2Normalize(step, chunk);
      break;
    case Code.l2NormalizeBackward:
      l2NormalizeBackward(step, chunk);
      break;
    case Code.weightNorm:
      weightNorm(step, chunk);
      break;
    case Code.weightNormBackward:
      weightNormBackward(step, chunk);
      break;
    case Code.batchNormPartial:
      batchNormPartial(step, chunk);
      break;
    case Code.batchNormStats:
      batchNormStats(step, chunk);
      break;
    case Code.batchNormMoments:
      batchNormMoments(step, chunk);
      break;
    case Code.batchNormBackwardPartial:
      batchNormBackwardPartial(step, chunk);
      break;
    case Code.batchNormBackwardSums:
      batchNormBackwardSums(step, chunk);
      break;
    case Code.batchNorm:
      batchNorm(step, chunk);
      break;
    case Code.batchNormBackward:
      batchNormBackward(step, chunk);
      break;
    case Code.attention:
      attention(step, chunk);
      break;
    case Code.attentionBackward:
      attentionBackward(step, chunk);
      break;
    case Code.attentionProbs:
      attentionProbs(step, chunk);
      break;
    case Code.patchify:
      patchify(step, chunk);
      break;
    case Code.unpatchify:
      unpatchify(step, chunk);
      break;
    case Code.assembleTokens:
      assembleTokens(step, chunk);
      break;
    case Code.assembleTokensBackward:
      assembleTokensBackward(step, chunk);
      break;
    case Code.sumImages:
      sumImages(step, chunk);
      break;
    case Code.resample:
      resample(step, chunk);
      break;
    case Code.gatherRows:
      gatherRows(step, chunk);
      break;
    case Code.scatterRows:
      scatterRows(step, chunk);
      break;
    case Code.centeredSoftmax:
      centeredSoftmax(step, chunk);
      break;
    case Code.dinoLoss:
      dinoLoss(step, chunk);
      break;
    case Code.centerUpdate:
      centerUpdate(step, chunk);
      break;
    case Code.cutPieces:
      cutPieces(step, chunk);
      break;
    case Code.gradientNorms:
      gradientNorms(step, chunk);
      break;
    case Code.reduceNorms:
      reduceNorms(step, chunk);
      break;
    case Code.optimizerUpdate:
      optimizerUpdate(step, chunk);
      break;
    case Code.ema:
      ema(step, chunk);
      break;
    case Code.checkFinite:
      checkFinite(step, chunk);
      break;
    case Code.record:
      record(step, chunk);
      break;
    case Code.depthwiseConv:
      depthwiseConv(step, chunk);
      break;
    case Code.depthwiseConvWeightGradient:
      depthwiseConvWeightGradient(step, chunk);
      break;
    case Code.layerScale:
      layerScale(step, chunk);
      break;
    case Code.layerScaleBackward:
      layerScaleBackward(step, chunk);
      break;
    case Code.crossCovariance:
      crossCovariance(step, chunk);
      break;
    case Code.crossCovarianceBackward:
      crossCovarianceBackward(step, chunk);
      break;
    case Code.topK:
      topK(step, chunk);
      break;
    case Code.augment:
      augment(step, chunk);
      break;
    case Code.im2col:
      im2col(step, chunk);
      break;
    case Code.col2im:
      col2im(step, chunk);
      break;
    case Code.tapsBehind:
      tapsBehind(step, chunk);
      break;
    case Code.tapsBefore:
      tapsBefore(step, chunk);
      break;
    case Code.relu:
      relu(step, chunk);
      break;
    case Code.reluBackward:
      reluBackward(step, chunk);
      break;
    case Code.maxPool:
      maxPool(step, chunk);
      break;
    case Code.maxPoolBackward:
      maxPoolBackward(step, chunk);
      break;
    case Code.averagePool:
      averagePool(step, chunk);
      break;
    case Code.averagePoolBackward:
      averagePoolBackward(step, chunk);
      break;
  }
}

export { setContext };
export { fillConstants } from "./math";
export * from "./rows";
export * from "./columns";
export * from "./norm_rows";
export * from "./update_rows";
