// What commands that learn from labels have in common: which sources to open, and how they divide into training and test images.

import type { PixelSource } from "../../dino/data/dataset.ts";
import { type EvaluationSplit, evaluationSplit } from "../../dino/eval/knn/splits.ts";
import type { SourceRequest } from "./command.ts";

/** The data sets behind --data and --val: both halves of --data where it has two, those of the sample where there is none. */
export function labelledSources(
  { data, val, limit }: { data: string | null; val: string | null; limit?: number | null },
): Record<string, SourceRequest> {
  if (data === null && val !== null) throw new RangeError("--val without --data: give both, or neither");
  const sources: Record<string, SourceRequest> = { data: { path: data, limit: limit ?? undefined } };
  sources.val = { path: val ?? data, split: "test", ifHalved: data !== null && val === null };
  return sources;
}

/** Images to learn from and images to test on. Throws {RangeError} when nothing is labelled, or a test image is of no known class. */
export function labelledSplit(sources: Readonly<Record<string, PixelSource>>, seed: number): EvaluationSplit {
  const split = evaluationSplit(sources.data, sources.val, seed);
  if (!split) {
    throw new RangeError(`${sources.data.name}: has no labels: name a folder with a subfolder for each class`);
  }
  refuseForeignClasses(split);
  return split;
}

/** How many classes a classifier of the training images has. */
export function classCount({ train }: EvaluationSplit): number {
  return train.source.classNames?.length ?? 1 + train.labels.reduce((a, b) => Math.max(a, b), 0);
}

/** A test image of a class without training images can only be wrong. Throws {RangeError} naming the first. */
export function refuseForeignClasses(split: EvaluationSplit): void {
  const { train, test } = split, classes = classCount(split);
  const foreign = test.labels.findIndex((label) => label >= classes);
  if (foreign >= 0) {
    throw new RangeError(
      `${test.source.name}: ${test.source.id(test.indices[foreign])} is of a class that ${train.source.name} has no ` +
        "images of: give both halves the same classes",
    );
  }
}
