// Names of what an update may compute again: those of `train --recompute`, and what lies between them.

/** In the order of `recomputations`: nothing; normalised rows and GELUs; these and a share of the blocks; and all blocks. */
export const RECOMPUTATIONS = ["never", "rows", "0.25", "0.5", "0.75", "always"] as const;

/** One of them. */
export type RecomputationName = typeof RECOMPUTATIONS[number];
