// Every benchmark that runs on a backend, by name.

import type { BenchCase, BenchOptions } from "./case.ts";
import { attentionCases, gemmCases } from "./kernels.ts";
import { prologueCases } from "./prologues.ts";
import { lossCases, normCases, optimizerCases } from "./rows.ts";
import { augmentCases, forwardCases, knnCases, stepCases } from "./training.ts";

/** Makes the cases of a benchmark, one after the other: the next is made when the one before is done with. */
export type Suite = (options: BenchOptions) => AsyncGenerator<BenchCase>;

/** Benchmarks of a backend, in the order they run. */
export const SUITES: Readonly<Record<string, Suite>> = {
  gemm: gemmCases,
  attention: attentionCases,
  norm: normCases,
  loss: lossCases,
  optimizer: optimizerCases,
  prologues: prologueCases,
  step: stepCases,
  forward: forwardCases,
  augment: augmentCases,
  knn: knnCases,
};
