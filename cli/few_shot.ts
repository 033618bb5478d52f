// `dino few_shot`: accuracy from few labels; runs directly too.

import { deviceSearch } from "../dino/eval/knn/device_neighbours.ts";
import { FeatureExtractor } from "../dino/eval/features.ts";
import { fewLabelsLogistic, fewShotKnn, type FewShotResult, PENALTIES } from "../dino/eval/few_shot/few_shot.ts";
import type { LabelledImages } from "../dino/eval/knn/splits.ts";
import { integer, integers, number, text } from "../dino/config/field.ts";
import { checkCropSize } from "./evaluation/crop_size.ts";
import { runEvaluation } from "./evaluation/run.ts";
import type { EvaluationCommand } from "./evaluation/command.ts";
import { labelledSources, labelledSplit } from "./evaluation/labelled_halves.ts";
import { givenArguments } from "./processes/mode.ts";

const fields = {
  data: text(null, "labelled images to learn from; without it the embedded sample", { aliases: ["data-path"] }),
  val: text(null, "labelled images to classify; without it the val half of --data, or else a seeded tenth"),
  shots: integers([1, 2, 5, 10], "labelled images of each class, for k-NN", { min: 1 }),
  shares: text("0.01,0.1", "shares of the labels, for logistic regression; none: leave it out"),
  draws: integer(5, "times the labelled images are drawn anew", { min: 1 }),
  k: integer(20, "neighbours that vote at most", { min: 1 }),
  temperature: number(0.07, "of the vote", { above: 0 }),
  cropSize: integer(null, "side of the central crop; auto: what the network was trained on", {
    min: 1,
    unit: "pixels",
  }),
  batchSize: integer(64, "images of one pass", { min: 1, unit: "images" }),
  seed: integer(0, "of the draws", { min: 0, max: 2 ** 32 - 1 }),
};

/** The command. */
export const command: EvaluationCommand<typeof fields> = {
  name: "few_shot",
  usage: "few_shot RUN|WEIGHTS --data DIR [--val DIR] [flags]",
  about: "What the features are worth when few images have labels: k-NN with some images of each class, and logistic " +
    "regression with 1 % and 10 % of the labels, over several draws.",
  fields,
  sources: labelledSources,
  prepare: ({ shares }) => {
    sharesOf(shares);
    return Promise.resolve();
  },
  async evaluate({ backend, backbone, parameters, normalization, sources, signal, progress }, flags) {
    const split = labelledSplit(sources, flags.seed);
    const cropSize = checkCropSize(flags.cropSize, backbone);
    const extractor = await FeatureExtractor.create(backend, parameters, {
      backbone,
      cropSize,
      normalization,
      batch: Math.min(flags.batchSize, split.test.indices.length),
      sources: [...new Set([split.train.source, split.test.source])],
    });
    const featuresOf = async ({ source, indices, labels }: LabelledImages, what: string) => ({
      features: await extractor.extract(
        source,
        indices,
        signal,
        undefined,
        (done) => progress(what, done, indices.length),
      ),
      labels,
      dim: extractor.width,
    });
    const train = await featuresOf(split.train, "labelled images"), test = await featuresOf(split.test, "images");
    extractor.dispose();
    const search = deviceSearch(backend);
    const { draws, seed, k, temperature } = flags;
    const knn: FewShotResult[] = [];
    for (const [i, shots] of flags.shots.entries()) {
      knn.push(await fewShotKnn(train, test, { shots, draws, seed, k, temperature, search }));
      progress("k-NN", i + 1, flags.shots.length);
    }
    const shares = sharesOf(flags.shares);
    const fits = shares.length * draws * (PENALTIES.length + 1);
    const logistic: FewShotResult[] = [];
    let fitted = 0;
    for (const share of shares) {
      const onFit = () => progress("logistic regressions", ++fitted, fits);
      logistic.push(await fewLabelsLogistic(backend, train, test, { share, draws, seed, onFit }));
    }
    const line = (what: string, r: FewShotResult) =>
      `  ${what.padEnd(34)} top-1 ${r.mean.toFixed(2)} ± ${r.deviation.toFixed(2)} %   (${r.images} labelled images)`;
    return {
      value: { split: split.description, draws, knn, logistic },
      lines: [
        `${test.labels.length} images classified, ${draws} draws of the labelled ones`,
        ...knn.map((r) => line(`k-NN, ${r.labels} of each class`, r)),
        ...logistic.map((r) => line(`logistic regression, ${100 * r.labels} % of labels`, r)),
      ],
    };
  },
};

function sharesOf(text: string): number[] {
  if (text === "none") return [];
  const shares = text.split(",").map(Number);
  if (shares.some((share) => !(share > 0 && share <= 1))) {
    throw new RangeError(`--shares ${text}: wants numbers above 0 and up to 1, such as 0.01,0.1, or none`);
  }
  return shares;
}

/** Runs the command; returns its exit status. */
export const main = (words: readonly string[]): Promise<number> => runEvaluation(command, words);

if (import.meta.main) Deno.exit(await main(givenArguments()));
