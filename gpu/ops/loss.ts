// The cross-entropy of DINO and its center.
import type { OpOf } from "../../models/graph/ops/mod.ts";
import { size } from "../../models/graph/tensor.ts";
import { kernel } from "../kernels/sources.ts";
import type { Lowering } from "../lowering.ts";
import { matrixOf } from "./elementwise.ts";

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

export function lowerDinoLoss(l: Lowering, op: OpOf<"dinoLoss">): void {
  const { rows, columns, width } = matrixOf(op.in.student);
  const { globals, images, temperature, gradientScale, firstView = 0 } = op.attrs;
  const { dlogits, losses } = op.out;
  l.emit(
    kernel("dino_loss", { width, ...ROW }),
    [l.of(op.in.student), l.of(op.in.probs), l.of(dlogits), l.of(losses)],
    {
      u: [rows, columns / width, images, globals, Number(dlogits !== undefined), firstView],
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
