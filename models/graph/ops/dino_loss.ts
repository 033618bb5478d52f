// The cross-entropy between teacher and student views, its gradient, and the center that keeps it from collapsing.
import { asMatrix, type Program, require } from "../program.ts";
import { size, type Tensor } from "../tensor.ts";
import type { Operation, OpRule } from "./rule.ts";

/**
 * probs[r, :] = softmax((logits[r, :] − center) / temperature); entropy[r] = −Σ probs·log probs.
 * logits [R, K], center [K], temperature [1]. `probs` may be `logits`' memory.
 */
export type CenteredSoftmaxOp = Operation<
  "centeredSoftmax",
  { logits: Tensor; center: Tensor; temperature: Tensor },
  { probs: Tensor; entropy?: Tensor },
  Record<never, never>
>;

/**
 * student [V·B, K] logits, view-major, of views firstView … firstView + V (default from 0); probs [G·B, K] teacher probabilities of
 * the first G of all views.
 * For student row (v, b), with n the number of teacher views other than v and t = Σ_{g≠v} probs[g, b, :]:
 *   losses[v·B + b] = n·logsumexp(s/τ) − Σ t·s/τ
 *   dlogits[v·B + b, :] = gradientScale · (n·softmax(s/τ) − t) / τ
 * `dlogits` may be `student`'s memory. The loss is Σ losses / (B·G·(V − 1)) (see {@link lossTerms}).
 */
export type DinoLossOp = Operation<
  "dinoLoss",
  { student: Tensor; probs: Tensor },
  { dlogits?: Tensor; losses: Tensor },
  { views: number; globals: number; images: number; temperature: number; gradientScale: number; firstView?: number }
>;

/** center ← momentum·center + (1 − momentum)·sum / rows; does nothing while `frozen[0]` ≠ 0. sum, center [K]. */
export type CenterUpdateOp = Operation<
  "centerUpdate",
  { sum: Tensor; center: Tensor; frozen?: Tensor },
  { center: Tensor },
  { momentum: number; rows: number }
>;

/** Pairs of a teacher view and another student view: the divisor of the loss (18 for 2 + 8 crops). */
export function lossTerms(globals: number, views: number): number {
  return globals * (views - 1);
}

/** Sharpened, centred teacher probabilities; `entropy` [R] is for the collapse monitor. */
export function centeredSoftmax(
  p: Program,
  logits: Tensor,
  center: Tensor,
  temperature: Tensor,
): { probs: Tensor; entropy: Tensor } {
  const [rows, K] = asMatrix(logits);
  require(
    size(center) === K && size(temperature) === 1,
    "centeredSoftmax",
    () => `logits [${logits.shape}], center [${center.shape}]`,
  );
  const probs = p.activation(`softmax(${logits.name})`, logits.shape);
  const entropy = p.activation(`entropy(${logits.name})`, [rows]);
  p.emit<CenteredSoftmaxOp>({
    kind: "centeredSoftmax",
    in: { logits, center, temperature },
    out: { probs, entropy },
    attrs: {},
  });
  return { probs, entropy };
}

/** Loss per student row and, at once, its gradient. */
export function dinoLoss(
  p: Program,
  student: Tensor,
  probs: Tensor,
  attrs: DinoLossOp["attrs"],
): { dlogits: Tensor; losses: Tensor } {
  const { views, globals, images, firstView } = attrs;
  const [rows, K] = asMatrix(student);
  require(
    globals >= 1 && (firstView !== undefined || views >= 2 && globals <= views),
    "dinoLoss",
    () => `${globals} global of ${views} views leave no pair`,
  );
  require(
    rows === views * images,
    "dinoLoss",
    () => `student [${student.shape}] is not ${views} views × ${images} images`,
  );
  require(
    size(probs) === globals * images * K,
    "dinoLoss",
    () => `probs [${probs.shape}] is not ${globals} × ${images} × ${K}`,
  );
  const dlogits = p.activation(`d(${student.name})`, student.shape);
  const losses = p.activation("losses", [rows]);
  p.emit<DinoLossOp>({ kind: "dinoLoss", in: { student, probs }, out: { dlogits, losses }, attrs });
  return { dlogits, losses };
}

export const centeredSoftmaxRule: OpRule<CenteredSoftmaxOp> = {
  optionalOutputs: ["entropy"],
  inPlace: { probs: "logits" },
  reference(op, at) {
    const logits = at(op.in.logits), center = at(op.in.center), temperature = at(op.in.temperature)[0];
    const probs = at(op.out.probs), entropy = op.out.entropy && at(op.out.entropy);
    const [rows, K] = asMatrix(op.in.logits);
    for (let r = 0; r < rows; r++) {
      const z = Float64Array.from({ length: K }, (_, k) => (logits[r * K + k] - center[k]) / temperature);
      const max = z.reduce((a, b) => Math.max(a, b), -Infinity);
      const sum = z.reduce((a, b) => a + Math.exp(b - max), 0);
      let h = 0;
      for (let k = 0; k < K; k++) {
        const q = Math.exp(z[k] - max) / sum;
        probs[r * K + k] = q;
        h -= q * (z[k] - max - Math.log(sum));
      }
      if (entropy) entropy[r] = h;
    }
  },
};

export const dinoLossRule: OpRule<DinoLossOp> = {
  optionalOutputs: ["dlogits"],
  inPlace: { dlogits: "student" },
  reference(op, at) {
    const student = at(op.in.student), probs = at(op.in.probs), losses = at(op.out.losses);
    const dlogits = op.out.dlogits && at(op.out.dlogits);
    const { views, globals, images, temperature, gradientScale, firstView = 0 } = op.attrs;
    const K = asMatrix(op.in.student)[1];
    for (let v = 0; v < views; v++) {
      for (let b = 0; b < images; b++) {
        const row = (v * images + b) * K;
        const s = Float64Array.from({ length: K }, (_, k) => student[row + k] / temperature);
        const target = new Float64Array(K);
        let n = 0;
        for (let g = 0; g < globals; g++) {
          if (g === firstView + v) continue; // the same view on both sides teaches nothing
          n++;
          for (let k = 0; k < K; k++) target[k] += probs[(g * images + b) * K + k];
        }
        const max = s.reduce((a, c) => Math.max(a, c), -Infinity);
        const sum = s.reduce((a, c) => a + Math.exp(c - max), 0);
        let loss = n * (max + Math.log(sum));
        for (let k = 0; k < K; k++) {
          loss -= target[k] * s[k];
          if (dlogits) dlogits[row + k] = gradientScale * (n * Math.exp(s[k] - max) / sum - target[k]) / temperature;
        }
        losses[v * images + b] = loss;
      }
    }
  },
};

export const centerUpdateRule: OpRule<CenterUpdateOp> = {
  reference(op, at) {
    if (op.in.frozen && at(op.in.frozen)[0] !== 0) return;
    const sum = at(op.in.sum), center = at(op.out.center);
    const { momentum, rows } = op.attrs;
    for (let k = 0; k < center.length; k++) center[k] = momentum * center[k] + (1 - momentum) * sum[k] / rows;
  },
};
