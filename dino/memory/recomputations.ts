// What an update may compute again instead of keeping, from nothing to all blocks, each step in less memory and more time.

import type { Recomputation } from "../../models/graph/recompute.ts";

/** Choices in the order of their cost; the first keeps everything. */
export function recomputations({ precision }: { readonly precision?: "f32" | "f16" }): readonly Recomputation[] {
  // Halves hold a rounded argument of the GELU: its value would not be the same.
  const light = { rows: true, gelus: precision !== "f16" };
  return [{}, light, ...[0.25, 0.5, 0.75, 1].map((segments) => ({ ...light, segments }))];
}

/** One of them in words, for people. */
export function describeRecomputation({ rows, segments = 0 }: Recomputation): string {
  if (segments > 0) {
    return `${segments === 1 ? "all" : `${100 * segments} % of the`} blocks are computed again in the backward pass`;
  }
  return rows ? "normalised rows and GELUs are computed again in the backward pass" : "all activations are kept";
}
