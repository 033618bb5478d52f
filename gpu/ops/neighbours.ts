// The largest scores of each row.
import { asMatrix } from "../../models/graph/program.ts";
import type { OpOf } from "../../models/graph/ops/mod.ts";
import { kernel } from "../kernels/sources.ts";
import type { Lowering } from "../lowering.ts";

export function lowerTopK(l: Lowering, op: OpOf<"topK">): void {
  const [rows, columns] = asMatrix(op.in.scores);
  const { k, first = 0 } = op.attrs;
  const earlier = op.in.earlierValues ? k : 0;
  const scores = l.of(op.in.scores), values = l.of(op.in.earlierValues), indices = l.of(op.in.earlierIndices);
  const winners = l.scratch(rows * k * 8);
  l.emit(kernel("top_k"), [scores, values, winners], { u: [rows, columns, k, earlier] }, rows);
  l.emit(
    kernel("top_k_rank"),
    [scores, values, indices, winners, l.of(op.out.values), l.of(op.out.indices)],
    { u: [rows * k, columns, k, earlier, first] },
    Math.ceil(rows * k / 256),
  );
}
