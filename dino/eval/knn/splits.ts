// Which labelled images vote and which are classified: two data sets, or a seeded tenth of one held out.

import { CounterRandom, STREAM } from "../../../models/rng.ts";
import type { PixelSource } from "../../data/dataset.ts";

/** Images of a source, with their classes. */
export interface LabelledImages {
  /** Where the images are. */
  readonly source: PixelSource;
  /** Which of them. */
  readonly indices: Uint32Array;
  /** [indices], 0 … classes − 1, one numbering for both sides. */
  readonly labels: Int32Array;
}

/** Both sides of a k-NN evaluation. */
export interface EvaluationSplit {
  /** Those that vote. */
  readonly train: LabelledImages;
  /** Those that are classified. */
  readonly test: LabelledImages;
  /** In words, for the log. */
  readonly description: string;
}

/** Images of `count` held out: a tenth, at least one, in ascending order; a function of seed and count alone. */
export function heldOutTenth(count: number, seed: number): { kept: Uint32Array; heldOut: Uint32Array } {
  const order = new CounterRandom(seed, STREAM.split).shuffle(Uint32Array.from({ length: count }, (_, i) => i));
  const size = Math.max(1, Math.floor(count / 10));
  return { heldOut: order.slice(0, size).sort(), kept: order.slice(size).sort() };
}

/**
 * Chooses the sides of an evaluation: `val` is classified by `data`, or else a tenth of the labelled one is held out.
 *
 * @returns undefined if there are no labels to evaluate with
 * @throws {RangeError} if `val` has no labels, or both have but no class name in common
 */
export function evaluationSplit(
  data: PixelSource,
  val: PixelSource | undefined,
  seed: number,
): EvaluationSplit | undefined {
  if (val && !val.labels) {
    throw new RangeError(
      `--val ${val.name}: has no labels: name a folder with a subfolder for each class, or leave it out`,
    );
  }
  if (data.labels && val?.labels) {
    return {
      train: everyImage(data, data.labels),
      test: everyImage(val, numberedAs(data, val)),
      description: `${val.length} images of ${val.name} by the votes of ${data.length}`,
    };
  }
  const source = data.labels ? data : val?.labels ? val : undefined;
  if (!source || source.length < 2) return undefined;
  const { kept, heldOut } = heldOutTenth(source.length, seed);
  const side = (indices: Uint32Array) => ({
    source,
    indices,
    labels: Int32Array.from(indices, (i) => source.labels![i]),
  });
  return {
    train: side(kept),
    test: side(heldOut),
    description: `a tenth of ${source.name} held out: ${heldOut.length} images by the votes of ${kept.length}`,
  };
}

function everyImage(source: PixelSource, labels: Int32Array): LabelledImages {
  return { source, indices: Uint32Array.from({ length: source.length }, (_, i) => i), labels };
}

/** Labels of `val` in the numbering of `data`, by class name where both have names; classes of its own come after. */
function numberedAs(data: PixelSource, val: PixelSource): Int32Array {
  if (!data.classNames || !val.classNames) return val.labels!;
  const numbers = new Map(data.classNames.map((name, i) => [name, i]));
  if (!val.classNames.some((name) => numbers.has(name))) {
    throw new RangeError(
      `--val: its classes (${shorten(val.classNames)}) have nothing in common with those of the data ` +
        `(${shorten(data.classNames)}): name its folders alike, or leave it out`,
    );
  }
  const mapping = val.classNames.map((name) => {
    if (!numbers.has(name)) numbers.set(name, numbers.size);
    return numbers.get(name)!;
  });
  return Int32Array.from(val.labels!, (label) => mapping[label]);
}

function shorten(names: readonly string[]): string {
  return names.length > 3 ? `${names.slice(0, 3).join(", ")}, …` : names.join(", ");
}
