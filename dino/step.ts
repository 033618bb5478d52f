// One update of DINO, top to bottom: Algorithm 1 of the paper, with multi-crop.
import { differentiate } from "../models/graph/autodiff.ts";
import { Program } from "../models/graph/program.ts";
import { emitAllReduce } from "../models/graph/ops/collective.ts";
import { emitColumnSum, emitCopy, emitSum } from "../models/graph/ops/elementwise.ts";
import { centeredSoftmax, dinoLoss, lossTerms } from "../models/graph/ops/dino_loss.ts";
import { gradientNorms, optimizerUpdate } from "../models/graph/ops/optimizer.ts";
import type { PatchGroup } from "../models/backbone.ts";
import { multiCrop } from "../models/dino_network.ts";
import type { Recomputation } from "../models/graph/recompute.ts";
import { gatherRows } from "../models/graph/ops/tokens.ts";
import { reshape, type Tensor, tensor } from "../models/graph/tensor.ts";
import type { DinoState } from "./state.ts";

/** What is fixed for the whole run. */
export interface StepConfig {
  /** Images of one part of the batch on one rank, B. The batch of an update is B · accumulate · ranks. */
  readonly images: number;
  /** Parts an update is computed in. */
  readonly accumulate: number;
  /**
   * Ranks that make every update together, default 1. Gradients, center and metrics are those of the whole batch, so is what a batch
   * norm normalises by, and every rank ends with the same bits.
   */
  readonly ranks?: number;
  /** Views the teacher sees: the first ones. */
  readonly globals: number;
  /** Views the student sees, globals included. */
  readonly views: number;
  /**
   * Compute the student's groups of crops one after the other, forward and backward: the activations of one group are there at a
   * time. Same loss, gradients but for the order of their sums.
   */
  readonly groupwise?: boolean;
  /** What the backward pass computes again instead of finding it kept. */
  readonly recompute?: Recomputation;
  /** Temperature of the student's softmax. */
  readonly studentTemp: number;
  /** Momentum of the center. */
  readonly centerMomentum: number;
  /** AdamW's first-moment decay, 0.9. */
  readonly beta1?: number;
  /** AdamW's second-moment decay, 0.999. */
  readonly beta2?: number;
  /** AdamW's epsilon, 1e-8. */
  readonly eps?: number;
  /** Momentum of SGD and LARS, 0.9. */
  readonly momentum?: number;
  /** Trust coefficient of LARS, 0.001. */
  readonly eta?: number;
}

/** The crops of one part: emits whatever makes them (augmentation, patchify) and tells where they are. */
export type CropSource = (p: Program) => {
  /** What the teacher sees: the first `globals` views, without drop path. */
  teacher: readonly PatchGroup[];
  /** What the student sees: all views, view-major, in groups of one size. */
  student: readonly PatchGroup[];
};

/** Programs whose runs, in order, make one update. */
export interface StepPrograms {
  /** Run for each part of the batch, in order: loss, gradients, sum of teacher logits. The first overwrites, the others add. */
  readonly parts: readonly Program[];
  /** Run once after the parts; already contained in the only part when `accumulate` is 1. */
  readonly update?: Program;
}

/** The programs of an update, each once. */
export function distinctPrograms({ parts, update }: StepPrograms): Program[] {
  return [...new Set([...parts, ...update ? [update] : []])];
}

/** Writes the programs of an update. */
export function stepPrograms(state: DinoState, c: StepConfig, crops: CropSource): StepPrograms {
  if (c.accumulate === 1) {
    const whole = gradientsOfPart(state, c, crops, true);
    return { parts: [emitUpdate(whole, state, c)] };
  }
  const first = gradientsOfPart(state, c, crops, true);
  const next = gradientsOfPart(state, c, crops, false);
  const parts = Array.from({ length: c.accumulate }, (_, i) => i === 0 ? first : next);
  return { parts, update: emitUpdate(new Program("update", c.ranks), state, c) };
}

/** Images of an update. */
function batchOf({ images, accumulate, ranks = 1 }: StepConfig): number {
  return images * accumulate * ranks;
}

/** Forward and backward of B images. Gradients of the parts add up to that of the whole batch. */
function gradientsOfPart(state: DinoState, c: StepConfig, crops: CropSource, first: boolean): Program {
  const p = new Program(first ? "step" : "step (next part)", c.ranks);
  const { teacher: globalViews, student: allViews } = crops(p);
  if (first) { for (const { kept, moving } of state.runningStatistics()) emitCopy(p, kept, moving); }
  const scale = 1 / (lossTerms(c.globals, c.views) * batchOf(c)); // mean over pairs, then over images

  // t1, t2 = gt(x1), gt(x2), with no gradient
  const t = multiCrop(p, state.teacherInUpdate, state.network, globalViews).logits; // [G·B, K]
  emitColumnSum(p, t, { tensor: state.centerSum, accumulate: !first });
  const { probs, entropy } = centeredSoftmax(p, t, state.center, state.scalars.get("teacherTemp"));

  // s1, s2, … = gs(x1), gs(x2), …; all at once unless memory forbids
  const chunks = c.groupwise ? allViews.map((group) => [group]) : [allViews];
  const allLosses: Tensor[] = [];
  let firstView = 0;
  for (const groups of chunks) {
    const from = p.ops.length;
    const s = multiCrop(p, state.studentInUpdate, state.network, groups).logits; // [views·B, K]

    // loss = mean over pairs of H(t, s) between different views
    const views = groups.reduce((sum, group) => sum + group.images, 0) / c.images;
    const { dlogits, losses } = dinoLoss(p, s, probs, {
      views,
      globals: c.globals,
      images: c.images,
      temperature: c.studentTemp,
      gradientScale: scale,
      firstView: c.groupwise ? firstView : undefined,
    });
    allLosses.push(losses);

    // loss.backward()
    const accumulate = !first || firstView > 0;
    differentiate(p, { from, seeds: [[s, dlogits]], wrt: state.trained(), accumulate, recompute: c.recompute });
    firstView += views;
  }
  emitSum(p, oneColumn(p, allLosses), state.metrics.get("loss"), scale, !first);
  emitSum(p, entropy, state.metrics.get("teacherEntropy"), 1 / (c.globals * batchOf(c)), !first);
  return p;
}

/** Values one under the other, so that their sum has one order however they were computed. */
function oneColumn(p: Program, parts: readonly Tensor[]): Tensor {
  if (parts.length === 1) return parts[0];
  const rows = parts.map(({ shape }) => shape[0]);
  const all = p.activation("losses", [rows.reduce((a, b) => a + b), 1]);
  let target = 0;
  for (const [i, part] of parts.entries()) {
    gatherRows(p, reshape(part, [rows[i], 1]), { count: rows[i], target }, all);
    target += rows[i];
  }
  return all;
}

/** Adds up what each rank found of its images. Whatever is not finite anywhere is not finite everywhere from here on. */
function emitAllReduces(p: Program, state: DinoState): void {
  emitAllReduce(p, state.gradients.flat);
  emitAllReduce(p, state.centerSum);
  emitAllReduce(p, state.metrics.get("loss"));
  emitAllReduce(p, state.metrics.get("teacherEntropy"));
}

/**
 * update(gs), gt ← λ·gt + (1 − λ)·gs, C ← m·C + (1 − m)·mean(t), and the running statistics each network's passes moved:
 * the teacher has its own, which no average follows. A non-finite loss or gradient freezes all of them.
 */
function emitUpdate(p: Program, state: DinoState, c: StepConfig): Program {
  const frozen = state.metrics.get("frozen");
  if (p.ranks > 1) emitAllReduces(p, state);
  gradientNorms(p, state.gradients.flat, state.student.flat, state.segments, state.norms);
  p.emit({ kind: "checkFinite", in: { x: state.metrics.get("loss") }, out: { flag: frozen }, attrs: {} });
  p.emit({ kind: "checkFinite", in: { x: state.norms }, out: { flag: frozen }, attrs: {} });
  optimizerUpdate(p, {
    param: state.student.flat,
    grad: state.gradients.flat,
    first: state.first.flat,
    second: state.second?.flat,
    norms: state.norms,
    groups: state.groups,
    segments: state.segments,
    teacher: state.teacher.flat,
    teacherMomentum: state.scalars.get("teacherMomentum"),
    frozen,
  }, {
    method: state.method,
    beta1: c.beta1 ?? 0.9,
    beta2: c.beta2 ?? 0.999,
    eps: c.eps ?? 1e-8,
    momentum: c.momentum ?? 0.9,
    eta: c.eta ?? 0.001,
  });
  p.emit({
    kind: "centerUpdate",
    in: { sum: state.centerSum, center: state.center, frozen },
    out: { center: state.center },
    attrs: { momentum: c.centerMomentum, rows: c.globals * batchOf(c) },
  });
  const momentum = tensor("nothing kept", [1], "constant", "f32", Float32Array.of(0));
  for (const { kept, moving } of state.runningStatistics()) {
    p.emit({ kind: "ema", in: { source: moving, target: kept, momentum, frozen }, out: { target: kept }, attrs: {} });
  }
  p.emit({
    kind: "record",
    in: { values: state.metrics.flat, row: state.scalars.get("ringRow") },
    out: { ring: state.ring },
    attrs: {},
  });
  return p;
}
