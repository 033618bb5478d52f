// Nearest neighbours: the largest scores of each row.
import { asMatrix, type Program, require } from "../program.ts";
import { type Tensor, tensor } from "../tensor.ts";
import type { Operation, OpRule } from "./rule.ts";

/**
 * values [Q, k] and indices i32 [Q, k]: the k largest of scores [Q, N], descending; equal scores by ascending index.
 * `first` (default 0) is the index of the first column. With `earlierValues` and `earlierIndices` [Q, k], the k largest of
 * columns before it, the result is the k largest of both: so a database larger than a device binds is searched in blocks.
 */
export type TopKOp = Operation<
  "topK",
  { scores: Tensor; earlierValues?: Tensor; earlierIndices?: Tensor },
  { values: Tensor; indices: Tensor },
  { k: number; first?: number }
>;

/** What a selection found: values [Q, k] and indices i32 [Q, k]. */
export interface Selected {
  /** Largest first. */
  readonly values: Tensor;
  /** Which columns they were in. */
  readonly indices: Tensor;
}

/** How {@link topK} selects. */
export interface TopKOptions {
  /** Selection among the columns before these. */
  readonly earlier?: Selected;
  /** Index of the first column. */
  readonly first?: number;
  /** Where to put what was found; default new `output` tensors, which the host can read. */
  readonly into?: Selected;
}

/** Emits a top-k selection. */
export function topK(p: Program, scores: Tensor, k: number, { earlier, first = 0, into }: TopKOptions = {}): Selected {
  const [rows, columns] = asMatrix(scores);
  require(k >= 1 && (k <= columns || earlier !== undefined), "topK", () => `k = ${k} of ${columns} columns`);
  const out = into ?? {
    values: tensor("topK.values", [rows, k], "output"),
    indices: tensor("topK.indices", [rows, k], "output", "i32"),
  };
  const { values: earlierValues, indices: earlierIndices } = earlier ?? {};
  p.emit<TopKOp>({ kind: "topK", in: { scores, earlierValues, earlierIndices }, out, attrs: { k, first } });
  return out;
}

export const topKRule: OpRule<TopKOp> = {
  reference(op, at) {
    const scores = at(op.in.scores), values = at(op.out.values), indices = at(op.out.indices);
    const [rows, columns] = asMatrix(op.in.scores), { k, first = 0 } = op.attrs;
    const { earlierValues, earlierIndices } = op.in;
    for (let r = 0; r < rows; r++) {
      const own = Array.from(scores.subarray(r * columns, (r + 1) * columns), (value, i) => ({ value, i: first + i }));
      const earlier = earlierValues && earlierIndices
        ? Array.from(
          at(earlierValues).subarray(r * k, (r + 1) * k),
          (value, i) => ({ value, i: at(earlierIndices)[r * k + i] }),
        )
        : [];
      [...earlier, ...own].sort((a, b) => b.value - a.value || a.i - b.i).slice(0, k).forEach(({ value, i }, n) => {
        values[r * k + n] = value;
        indices[r * k + n] = i;
      });
    }
  },
};
