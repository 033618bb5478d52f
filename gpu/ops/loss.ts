// The cross-entropy of DINO and its center.
import type { OpOf } from "../../models/graph/ops/mod.ts";
import { asMatrix } from "../../models/graph/program.ts";
import { size, type Tensor } from "../../models/graph/tensor.ts";
import type { Binding } from "../dispatch.ts";
import { alignedUnits, slice } from "../tiles.ts";
import { kernel } from "../kernels/sources.ts";
import type { Lowering } from "../lowering.ts";
import { matrixOf, widthOf } from "./elementwise.ts";

const ROW = { with: ["math", "rows"], constants: { LANES: 256 } } as const;

export function lowerCenteredSoftmax(l: Lowering, op: OpOf<"centeredSoftmax">): void {
  const { rows, columns, width } = matrixOf(op.in.logits);
  const { logits, center, temperature } = op.in, { probs, entropy } = op.out;
  l.emit(
    kernel("centered_softmax", { width, ...ROW }),
    [l.of(logits), l.of(center), l.of(temperature), l.of(probs), l.of(entropy)],
    { u: [rows, columns / width, Number(entropy !== undefined)] },
    rows,
  );
}

/**
 * The loss; where logits or probabilities are more than the device binds, view by view and for a range of images at a time,
 * whose probabilities are brought together from the teacher's views.
 */
export function lowerDinoLoss(l: Lowering, op: OpOf<"dinoLoss">): void {
  const { student, probs } = op.in, { dlogits, losses } = op.out;
  const { views, globals, images, firstView = 0 } = op.attrs;
  const limit = l.limits.bindingBytes;
  if (l.bytesOf(student) <= limit && l.bytesOf(probs) <= limit) return emitLoss(l, op, l.of(probs));
  const rowBytes = l.bytesOf(student) / (views * images);
  const step = alignedUnits([rowBytes]);
  const most = Math.floor(limit / (globals * rowBytes) / step) * step;
  // Views follow each other by `images` rows, so these must keep the alignment too.
  if (most < 1 || images % step !== 0) return emitLoss(l, op, l.of(probs));
  for (let start = 0; start < images; start += most) {
    const count = Math.min(most, images - start);
    const rows = (t: Tensor, from: number) => slice(t, size(t) / asMatrix(t)[1], from, count);
    const words = count * rowBytes / 4, width = widthOf(words);
    const together = l.scratch(4 * globals * words);
    for (let g = 0; g < globals; g++) {
      const u = [1, words / width, 0, 0, 0, g * words / width];
      const from = l.of(rows(probs, g * images + start));
      l.emit(kernel("copy_columns", { width }), [from, together], { u }, Math.ceil(words / width / 256));
    }
    for (let v = 0; v < views; v++) {
      const from = v * images + start;
      const of = (t: Tensor) => slice(t, views * images, from, count);
      const part = {
        ...op,
        in: { student: of(student), probs },
        out: { dlogits: dlogits && of(dlogits), losses },
        attrs: { ...op.attrs, views: 1, images: count, firstView: firstView + v },
      };
      emitLoss(l, part, together, from);
    }
  }
}

function emitLoss(l: Lowering, op: OpOf<"dinoLoss">, probs: Binding, firstLoss = 0): void {
  const { rows, columns, width } = matrixOf(op.in.student);
  const { globals, images, temperature, gradientScale, firstView = 0 } = op.attrs;
  const { dlogits, losses } = op.out;
  l.emit(
    kernel("dino_loss", { width, ...ROW }),
    [l.of(op.in.student), probs, l.of(dlogits), l.of(losses)],
    {
      u: [rows, columns / width, images, globals, Number(dlogits !== undefined), firstView, firstLoss],
      f: [1 / temperature, gradientScale / temperature],
    },
    rows,
  );
}

export function lowerCenterUpdate(l: Lowering, op: OpOf<"centerUpdate">): void {
  const { momentum, rows } = op.attrs;
  const count = size(op.out.center);
  l.emit(
    kernel("center_update"),
    [l.of(op.in.sum), l.of(op.out.center), l.of(op.in.frozen)],
    { u: [count, Number(op.in.frozen !== undefined)], f: [momentum, (1 - momentum) / rows] },
    Math.ceil(count / 256),
  );
}
