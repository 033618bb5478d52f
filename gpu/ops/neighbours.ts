// The largest scores of each row.
import { asMatrix } from "../../models/graph/program.ts";
import type { OpOf } from "../../models/graph/ops/mod.ts";
import { kernel } from "../kernels/sources.ts";
import type { Lowering } from "../lowering.ts";

export function lowerTopK(l: Lowering, op: OpOf<"topK">): void {
  const [rows, columns] = asMatrix(op.in.scores);
  const { k } = op.attrs;
  const winners = l.scratch(rows * k * 8);
  l.emit(
    kernel("top_k"),
    [l.of(op.in.scores), l.of(op.out.values), l.of(op.out.indices), winners],
    { u: [rows, columns, k] },
    rows,
  );
}
