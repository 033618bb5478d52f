// Cross-entropy with given class probabilities, and its gradient, made of the operation of the DINO loss.

import { dinoLoss } from "../../models/graph/ops/dino_loss.ts";
import { emitScaleRows } from "../../models/graph/ops/elementwise.ts";
import { gatherRows } from "../../models/graph/ops/tokens.ts";
import { canViewRows, type Program, rows } from "../../models/graph/program.ts";
import type { Tensor } from "../../models/graph/tensor.ts";

/** What {@linkcode crossEntropy} emits. */
export interface CrossEntropy {
  /** [2 · n]: the second half holds the loss of each row. */
  readonly losses: Tensor;
  /** [n, classes]: gradient of Σ rowWeights · losses by the logits. */
  readonly dlogits: Tensor;
}

/**
 * Emits the losses of logits [n, classes] against probabilities [n, classes] that sum to 1, and their gradient.
 *
 * @param rowWeights [n]: 1 / n for a mean; 0 leaves a row out
 */
export function crossEntropy(p: Program, logits: Tensor, targets: Tensor, rowWeights: Tensor): CrossEntropy {
  const [n, classes] = logits.shape;
  // The targets are one teacher view, the logits one student view. A student's first view is never compared with the
  // first of the teacher: it is there for the count alone.
  const views = p.activation("views", [2 * n, classes]);
  gatherRows(p, logits, { count: n }, views);
  gatherRows(p, logits, { count: n, target: n }, views);
  const attrs = { views: 2, globals: 1, images: n, temperature: 1, gradientScale: 1 };
  const { dlogits, losses } = dinoLoss(p, views, targets, attrs);
  const compared = canViewRows(dlogits, n) ? rows(dlogits, n, n) : gatherRows(p, dlogits, { start: n, count: n });
  return { losses, dlogits: emitScaleRows(p, compared, rowWeights) };
}
