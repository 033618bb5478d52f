// What changes parameters: gradient norms, AdamW / SGD / LARS with per-tensor clipping, the EMA teacher, and the guard against NaN.
import { type Program, require } from "../program.ts";
import { size, type Tensor, tensor } from "../tensor.ts";
import type { Segment } from "../arena.ts";
import type { Operation, OpRule } from "./rule.ts";

/** Columns of the segment table: first element, elements, group. */
export const SEGMENT_COLUMNS = 4;
/** Columns of the group table. */
export const GROUP_COLUMNS = 8;
/** What each column of the group table holds; a row is written by the host before every update. */
export const GROUP = {
  lr: 0,
  weightDecay: 1,
  /** 1 − β₁ᵗ, with t the updates this group has had, this one included. */
  biasCorrection1: 2,
  /** 1 − β₂ᵗ. */
  biasCorrection2: 3,
  /** Largest gradient norm of a tensor; 0 leaves gradients alone. */
  clip: 4,
  /** 0: skip the group altogether (no decay, no moments), as PyTorch does for a missing gradient. */
  active: 5,
  /** 1 on the group's first update: SGD's momentum buffer then starts as the gradient itself. */
  first: 6,
  /** 1: LARS decays and adapts these tensors (those with more than one extent). */
  adapt: 7,
} as const;
/** Columns of the norm table: Σg², Σp², Σg·p, and a spare. */
export const NORM_COLUMNS = 4;

/**
 * For each segment s (a tensor inside the arenas): norms[s] = (Σ grad², Σ param², Σ grad·param, 0).
 * grad, param: flat arenas; segments i32 [S, 4]; norms [S, 4].
 */
export type GradientNormsOp = Operation<
  "gradientNorms",
  { grad: Tensor; param: Tensor; segments: Tensor },
  { norms: Tensor },
  Record<never, never>
>;

/**
 * One optimizer update of every segment whose group is active. With g = grad · min(1, clip / (‖grad‖ + 1e-6)) per segment
 * (the factor only where clip > 0 and the quotient is below 1):
 *
 * - adamw: p ·= 1 − lr·wd; m = β₁m + (1−β₁)g; v = β₂v + (1−β₂)g²; p −= lr/bc₁ · m / (√v/√bc₂ + eps). first = m, second = v.
 * - sgd: g += wd·p; m = first ? g : μ·m + g; p −= lr·m.
 * - lars: where adapt: g += wd·p, then g ·= η‖p‖/‖g‖ if both norms > 0; m = μ·m + g; p −= lr·m.
 *
 * If `teacher` is given, then for every segment, active or not: teacher = λ·teacher + (1 − λ)·p with the new p, λ = `teacherMomentum`[0].
 * While `frozen[0]` ≠ 0 nothing is written. Arenas are flat and of one layout; padding is never touched.
 */
export type OptimizerUpdateOp = Operation<
  "optimizerUpdate",
  {
    param: Tensor;
    grad: Tensor;
    first: Tensor;
    second?: Tensor;
    norms: Tensor;
    groups: Tensor;
    segments: Tensor;
    teacher?: Tensor;
    teacherMomentum?: Tensor;
    frozen?: Tensor;
  },
  { param: Tensor; first: Tensor; second?: Tensor; teacher?: Tensor },
  { method: "adamw" | "sgd" | "lars"; beta1: number; beta2: number; eps: number; momentum: number; eta: number }
>;

/** target ← λ·target + (1 − λ)·source, λ = momentum[0]; does nothing while `frozen[0]` ≠ 0. */
export type EmaOp = Operation<
  "ema",
  { source: Tensor; target: Tensor; momentum: Tensor; frozen?: Tensor },
  { target: Tensor },
  Record<never, never>
>;

/** flag[0] = 1 if any element of x is NaN or infinite; otherwise left as it is (once set, it stays). */
export type CheckFiniteOp = Operation<"checkFinite", { x: Tensor }, { flag: Tensor }, Record<never, never>>;

/** ring[row[0], :] = values: a row of metrics kept on the device until the host reads many at once. */
export type RecordOp = Operation<"record", { values: Tensor; row: Tensor }, { ring: Tensor }, Record<never, never>>;

/** The constant segment table of an arena; `group` says which row of the group table rules a tensor. */
export function segmentTable(segments: readonly Segment[], group: (s: Segment) => number): Tensor {
  const table = new Int32Array(segments.length * SEGMENT_COLUMNS);
  segments.forEach((s, i) => table.set([s.offset, s.length, group(s), 0], i * SEGMENT_COLUMNS));
  return tensor("segments", [segments.length, SEGMENT_COLUMNS], "constant", "i32", table);
}

/** Emits the norms of every segment into `norms` [S, 4]. */
export function gradientNorms(p: Program, grad: Tensor, param: Tensor, segments: Tensor, norms: Tensor): void {
  require(size(grad) === size(param), "gradientNorms", () => `grad [${grad.shape}], param [${param.shape}]`);
  p.emit<GradientNormsOp>({ kind: "gradientNorms", in: { grad, param, segments }, out: { norms }, attrs: {} });
}

/** Emits an optimizer update; see {@link OptimizerUpdateOp}. */
export function optimizerUpdate(
  p: Program,
  slots: OptimizerUpdateOp["in"],
  attrs: Pick<OptimizerUpdateOp["attrs"], "method"> & Partial<OptimizerUpdateOp["attrs"]>,
): void {
  const { param, first, second, teacher } = slots;
  require(
    attrs.method !== "adamw" || second !== undefined,
    "optimizerUpdate",
    () => "adamw needs a second-moment arena",
  );
  require(!teacher === !slots.teacherMomentum, "optimizerUpdate", () => "teacher and teacherMomentum come together");
  p.emit<OptimizerUpdateOp>({
    kind: "optimizerUpdate",
    in: slots,
    out: { param, first, second, teacher },
    attrs: { beta1: 0.9, beta2: 0.999, eps: 1e-8, momentum: 0.9, eta: 0.001, ...attrs },
  });
}

export const gradientNormsRule: OpRule<GradientNormsOp> = {
  reference(op, at) {
    const grad = at(op.in.grad), param = at(op.in.param), norms = at(op.out.norms), segments = at(op.in.segments);
    for (let s = 0; s < op.in.segments.shape[0]; s++) {
      const [offset, length] = segments.subarray(s * SEGMENT_COLUMNS);
      let gg = 0, pp = 0, gp = 0;
      for (let i = offset; i < offset + length; i++) {
        gg += grad[i] * grad[i], pp += param[i] * param[i], gp += grad[i] * param[i];
      }
      norms.set([gg, pp, gp, 0], s * NORM_COLUMNS);
    }
  },
};

/** Keeps the clip factor finite for a zero gradient, as the reference does. */
const CLIP_EPS = 1e-6;

export const optimizerUpdateRule: OpRule<OptimizerUpdateOp> = {
  reference(op, at) {
    if (op.in.frozen && at(op.in.frozen)[0] !== 0) return;
    const { method, beta1, beta2, eps, momentum, eta } = op.attrs;
    const p = at(op.out.param), grad = at(op.in.grad), m = at(op.out.first), v = op.out.second && at(op.out.second);
    const norms = at(op.in.norms), segments = at(op.in.segments);
    const teacher = op.out.teacher && at(op.out.teacher);
    const lambda = op.in.teacherMomentum ? at(op.in.teacherMomentum)[0] : 0;
    for (let s = 0; s < op.in.segments.shape[0]; s++) {
      const [offset, length, group] = segments.subarray(s * SEGMENT_COLUMNS);
      const row = at(op.in.groups).subarray(group * GROUP_COLUMNS);
      const [gg, pp, gp] = norms.subarray(s * NORM_COLUMNS);
      const lr = row[GROUP.lr], wd = row[GROUP.weightDecay], clip = row[GROUP.clip];
      const factor = clip > 0 ? Math.min(1, clip / (Math.sqrt(gg) + CLIP_EPS)) : 1;
      const decayed = factor * factor * gg + 2 * factor * wd * gp + wd * wd * pp; // ‖factor·g + wd·p‖²
      const adapt = row[GROUP.adapt] !== 0;
      const trust = adapt && pp > 0 && decayed > 0 ? eta * Math.sqrt(pp) / Math.sqrt(decayed) : 1;
      for (let i = offset; i < offset + length; i++) {
        if (row[GROUP.active] !== 0) {
          let g = grad[i] * factor;
          if (method === "adamw") {
            p[i] *= 1 - lr * wd;
            m[i] = beta1 * m[i] + (1 - beta1) * g;
            v![i] = beta2 * v![i] + (1 - beta2) * g * g;
            const denominator = Math.sqrt(v![i]) / Math.sqrt(row[GROUP.biasCorrection2]) + eps;
            p[i] -= lr / row[GROUP.biasCorrection1] * m[i] / denominator;
          } else {
            if (method === "sgd") g += wd * p[i];
            else if (adapt) g = (g + wd * p[i]) * trust;
            m[i] = method === "sgd" && row[GROUP.first] !== 0 ? g : momentum * m[i] + g;
            p[i] -= lr * m[i];
          }
        }
        if (teacher) teacher[i] = lambda * teacher[i] + (1 - lambda) * p[i];
      }
    }
  },
};

export const emaRule: OpRule<EmaOp> = {
  reference(op, at) {
    if (op.in.frozen && at(op.in.frozen)[0] !== 0) return;
    const source = at(op.in.source), target = at(op.out.target), lambda = at(op.in.momentum)[0];
    for (let i = 0; i < target.length; i++) target[i] = lambda * target[i] + (1 - lambda) * source[i];
  },
};

export const checkFiniteRule: OpRule<CheckFiniteOp> = {
  readsOutput: () => ["flag"],
  reference(op, at) {
    if (!at(op.in.x).every(Number.isFinite)) at(op.out.flag)[0] = 1;
  },
};

export const recordRule: OpRule<RecordOp> = {
  readsOutput: () => ["ring"],
  reference(op, at) {
    const values = at(op.in.values);
    at(op.out.ring).set(values, at(op.in.row)[0] * values.length);
  },
};
