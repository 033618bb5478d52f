// `dino linear --evaluate`: scores a classifier that somebody has trained, such as the release's, without training.

import { linearLogits, scoreLogits } from "../../dino/eval/classification.ts";
import { FeatureExtractor } from "../../dino/eval/features.ts";
import { type LinearFeatureOptions, linearFeatureWidth } from "../../dino/eval/linear/features.ts";
import { type LinearClassifier, readLinearClassifier } from "../../models/weights/network.ts";
import { openWeights } from "../../models/weights/open.ts";
import { checkCropSize } from "./crop_size.ts";
import type { EvaluationContext, EvaluationOutcome } from "./command.ts";

/** What the command line says of it. */
export interface EvaluationFlags {
  readonly weightsLinear: string;
  readonly lastBlocks: number | null;
  readonly patchAverage: LinearFeatureOptions["patchAverage"];
  readonly batchSize: number;
  readonly cropSize: number | null;
}

/**
 * Scores a classifier on the images of the source `data`.
 *
 * @throws {RangeError} if the images have no labels or other classes, or the classifier expects other features
 * @throws {SyntaxError} if the file holds no classifier
 */
export async function evaluateClassifier(
  context: EvaluationContext,
  flags: EvaluationFlags,
): Promise<EvaluationOutcome> {
  const { backend, backbone, parameters, normalization, sources: { data }, signal, progress } = context;
  const classifier = await readClassifier(flags.weightsLinear);
  if (!data.labels) throw new RangeError(`${data.name}: has no labels: name a folder with a subfolder for each class`);
  const classes = data.classNames?.length ?? 1 + data.labels.reduce((a, b) => Math.max(a, b), 0);
  if (classes !== classifier.classes) {
    throw new RangeError(
      `${flags.weightsLinear}: tells ${classifier.classes} classes apart, ${data.name} has ${classes}: ` +
        "a class is known by its place among the sorted names, so there must be as many",
    );
  }
  const features = featuresFor(classifier, backbone.embedDim, flags);
  const extractor = await FeatureExtractor.create(backend, parameters, {
    backbone,
    cropSize: checkCropSize(flags.cropSize, backbone),
    normalization,
    sources: [data],
    features,
    batch: Math.min(flags.batchSize, data.length),
  });
  const rows = await extractor.extract(
    data,
    undefined,
    signal,
    undefined,
    (done) => progress("images", done, data.length),
  );
  extractor.dispose();
  const logits = linearLogits(rows, classifier.weight, classifier.bias);
  const { top1, top5, loss } = scoreLogits(logits, data.labels, classes, flags.batchSize);
  const shown = `top-1 ${top1.toFixed(2)} %` + (top5 === undefined ? "" : `   top-5 ${top5.toFixed(2)} %`);
  const { lastBlocks, patchAverage } = features;
  return {
    value: { images: data.length, classes, dim: classifier.features, lastBlocks, patchAverage, top1, top5, loss },
    lines: [
      `${data.length} images of ${data.name} by ${flags.weightsLinear}, on ${classifier.features} features ` +
      `(last blocks ${lastBlocks}, patch average ${patchAverage})`,
      `  ${shown}   loss ${loss.toFixed(4)}`,
    ],
  };
}

async function readClassifier(path: string): Promise<LinearClassifier> {
  const file = await openWeights(path);
  try {
    return await readLinearClassifier(file);
  } finally {
    file.close();
  }
}

/**
 * The features that a classifier of this width expects: what the flags say, or else those of the release's classifiers (four
 * blocks for ViT-S, one interleaved with the patch average for ViT-B, the network's own output for the others).
 *
 * @throws {RangeError} if no features are of this width, or those asked for are not
 */
export function featuresFor(
  { features: width }: Pick<LinearClassifier, "features">,
  embedDim: number,
  { weightsLinear, lastBlocks, patchAverage }: Pick<EvaluationFlags, "weightsLinear" | "lastBlocks" | "patchAverage">,
): LinearFeatureOptions {
  const asked = lastBlocks !== null || patchAverage !== "none";
  const candidates: LinearFeatureOptions[] = asked ? [{ lastBlocks: lastBlocks ?? 1, patchAverage }] : [
    { lastBlocks: 1, patchAverage: "none" },
    { lastBlocks: 4, patchAverage: "none" },
    { lastBlocks: 1, patchAverage: "interleaved" },
  ];
  const found = candidates.find((each) => linearFeatureWidth(embedDim, each) === width);
  if (found) return found;
  const widths = candidates.map((each) => linearFeatureWidth(embedDim, each));
  throw new RangeError(
    `${weightsLinear}: expects ${width} features, this network ${asked ? "so asked gives" : "gives"} ` +
      `${widths.join(" or ")}: use the network it was trained on, or --last-blocks and --patch-average`,
  );
}
