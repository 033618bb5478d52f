// Nearest neighbours: the largest scores of each row.
import { asMatrix, type Program, require } from "../program.ts";
import { type Tensor, tensor } from "../tensor.ts";
import type { Operation, OpRule } from "./rule.ts";

/** values [Q, k] and indices i32 [Q, k]: the k largest of scores [Q, N], descending; equal scores by ascending index. */
export type TopKOp = Operation<"topK", { scores: Tensor }, { values: Tensor; indices: Tensor }, { k: number }>;

/** Emits a top-k selection into new `output` tensors, which the host can read. */
export function topK(p: Program, scores: Tensor, k: number): { values: Tensor; indices: Tensor } {
  const [rows, columns] = asMatrix(scores);
  require(k >= 1 && k <= columns, "topK", () => `k = ${k} of ${columns} columns`);
  const values = tensor("topK.values", [rows, k], "output");
  const indices = tensor("topK.indices", [rows, k], "output", "i32");
  p.emit<TopKOp>({ kind: "topK", in: { scores }, out: { values, indices }, attrs: { k } });
  return { values, indices };
}

export const topKRule: OpRule<TopKOp> = {
  reference(op, at) {
    const scores = at(op.in.scores), values = at(op.out.values), indices = at(op.out.indices);
    const [rows, columns] = asMatrix(op.in.scores), { k } = op.attrs;
    for (let r = 0; r < rows; r++) {
      const row = scores.subarray(r * columns, (r + 1) * columns);
      const order = Array.from(row.keys()).sort((a, b) => row[b] - row[a] || a - b).slice(0, k);
      order.forEach((index, i) => {
        values[r * k + i] = row[index];
        indices[r * k + i] = index;
      });
    }
  },
};
