// `dino linear`: trains linear classifiers on a network's frozen features; runs directly too.

import { flipAndCrop } from "../dino/eval/probe_crops.ts";
import { FeatureExtractor } from "../dino/eval/features.ts";
import { scoreLogits } from "../dino/eval/classification.ts";
import { LinearProbe } from "../dino/eval/linear/linear.ts";
import { readProbe, writeProbe } from "../dino/eval/linear/checkpoint.ts";
import { boolean, choice, integer, number, text } from "../dino/config/field.ts";
import { epochPermutation } from "../models/rng.ts";
import { checkCropSize } from "./evaluation/crop_size.ts";
import { runEvaluation } from "./evaluation/run.ts";
import type { EvaluationCommand } from "./evaluation/command.ts";
import { evaluateClassifier } from "./evaluation/linear_evaluate.ts";
import { classCount, labelledSources, labelledSplit } from "./evaluation/labelled_halves.ts";
import { givenArguments } from "./processes/mode.ts";

const fields = {
  data: text(null, "labelled training images; without it the embedded sample", { aliases: ["data-path"] }),
  val: text(null, "labelled images to classify; without it the val half of --data, or else a seeded tenth"),
  out: text(
    null,
    "file for the classifiers, .safetensors, written after every epoch; an interrupted run goes on from it",
  ),
  evaluate: boolean(false, "train nothing, score the classifier in --weights-linear on --val, or on all of --data"),
  weightsLinear: text(
    null,
    "with --evaluate: a trained classifier, such as the release's dino_deitsmall16_linearweights.pth, or what --out wrote",
  ),
  lastBlocks: integer(
    null,
    "blocks whose [CLS] is taken; auto: 4, as for ViT-S; 1 with an interleaved average, or no ViT",
    {
      min: 1,
      aliases: ["n-last-blocks"],
    },
  ),
  patchAverage: choice(
    ["none", "interleaved", "concatenated"],
    "none",
    "the mean of the patch tokens as well: interleaved for ViT-B, as its published classifiers expect",
  ),
  epochs: integer(100, "passes over the training images", { min: 1 }),
  lr: text("0.001", "learning rate for a batch of 256; several, with commas, are trained side by side"),
  momentum: number(0.9, "SGD's momentum", { min: 0, max: 1 }),
  weightDecay: number(0, "SGD's weight decay", { min: 0 }),
  batchSize: integer(128, "images of an update", { min: 1, unit: "images", aliases: ["batch-size-per-gpu"] }),
  augment: boolean(
    true,
    "a new random crop and flip of every image in every epoch, as the reference; --no-augment takes central crops, whose " +
      "features are computed once",
  ),
  valFreq: integer(1, "epochs between validations", { min: 1 }),
  cropSize: integer(null, "side of the crop; auto: what the network was trained on", { min: 1, unit: "pixels" }),
  limit: integer(null, "use the first N training images only", { min: 1, unit: "images" }),
  seed: integer(0, "of initial weights, order and crops", { min: 0, max: 2 ** 32 - 1 }),
};

/** One classifier after its last validation. */
interface Trained {
  readonly lr: number;
  readonly top1: number;
  readonly top5: number | undefined;
  readonly best: number;
  readonly loss: number;
}

/** The command. */
export const command: EvaluationCommand<typeof fields> = {
  name: "linear",
  usage: "linear RUN|WEIGHTS --data DIR [--val DIR] [flags]",
  about: "Linear classification of frozen features: SGD with momentum, a cosine over the epochs, no augmentation but " +
    "crops and flips. Several learning rates cost little more than one.",
  fields,
  sources: (flags) => {
    if (!flags.evaluate) return labelledSources(flags);
    return { data: { path: flags.val ?? flags.data, split: "test", limit: flags.limit ?? undefined } };
  },
  prepare: ({ lr, out, patchAverage, lastBlocks, evaluate, weightsLinear }) => {
    learningRates(lr);
    if (evaluate !== (weightsLinear !== null)) {
      throw new RangeError(
        evaluate
          ? "--evaluate scores a trained classifier: name its file in --weights-linear"
          : `--weights-linear ${weightsLinear} goes with --evaluate: nothing is trained from it`,
      );
    }
    if (evaluate && out !== null) throw new RangeError(`--out ${out}: --evaluate trains nothing: leave it out`);
    if (patchAverage === "interleaved" && (lastBlocks ?? 1) !== 1) {
      throw new RangeError(
        `--patch-average interleaved with --last-blocks ${lastBlocks}: the reference has no such features: ` +
          "use --last-blocks 1, or --patch-average concatenated",
      );
    }
    if (out !== null && !out.endsWith(".safetensors")) throw new RangeError(`--out ${out}: name a .safetensors file`);
    return Promise.resolve();
  },

  async evaluate(context, flags) {
    const { weightsLinear } = flags;
    if (weightsLinear !== null) return await evaluateClassifier(context, { ...flags, weightsLinear });
    const { backend, backbone, parameters, normalization, sources, signal, progress, notice } = context;
    const split = labelledSplit(sources, flags.seed);
    const { train, test } = split;
    const names = train.source.classNames;
    const classes = classCount(split);
    const description = `${test.indices.length} images of ${test.source.name}, after training on ` +
      `${train.indices.length}${train.source === test.source ? " others" : ` of ${train.source.name}`}`;
    notice(`classifying ${description}`);
    const cropSize = checkCropSize(flags.cropSize, backbone);
    const { patchAverage } = flags;
    const usualBlocks = patchAverage === "interleaved" || "family" in backbone ? 1 : Math.min(4, backbone.depth);
    const features = { lastBlocks: flags.lastBlocks ?? usualBlocks, patchAverage };
    const batch = Math.min(flags.batchSize, train.indices.length);
    const all = { backbone, cropSize, normalization, sources: [...new Set([train.source, test.source])], features };
    const extractor = await FeatureExtractor.create(backend, parameters, { ...all, batch });
    const dim = extractor.width;
    const rates = learningRates(flags.lr);
    const options = {
      dim,
      classes,
      batch,
      epochs: flags.epochs,
      learningRates: rates.map((lr) => lr * batch / 256),
      momentum: flags.momentum,
      weightDecay: flags.weightDecay,
    };
    const probe = await LinearProbe.create(backend, options, flags.seed);
    const fingerprint = [train.source.fingerprint, context.weightsPath, cropSize, JSON.stringify(features), flags.seed]
      .join(" ");
    const found = flags.out === null ? undefined : await readProbe(flags.out, options, fingerprint);
    if (found) {
      probe.restore(found.weights, found.momenta, found.steps);
      notice(`${flags.out}: going on after epoch ${found.epochs}`);
    }
    const testRows = await extractor.extract(
      test.source,
      test.indices,
      signal,
      undefined,
      (done) => progress("validation images", done, test.indices.length),
    );
    const once = flags.augment ? undefined : await extractor.extract(
      train.source,
      train.indices,
      signal,
      undefined,
      (done) => progress("training images", done, train.indices.length),
    );
    const history: { epoch: number; scores: Trained[] }[] = [];
    const best = found?.best.slice() ?? rates.map(() => 0);
    const n = train.indices.length;
    for (let epoch = found?.epochs ?? 0; epoch < flags.epochs; epoch++) {
      const order = epochPermutation(n, flags.seed, epoch);
      for (let start = 0; start < n; start += batch) {
        const places = order.subarray(start, Math.min(start + batch, n));
        const labels = Int32Array.from(places, (i) => train.labels[i]);
        const rows = once ? gather(once, places, dim) : await extractor.extract(
          train.source,
          Uint32Array.from(places, (i) => train.indices[i]),
          signal,
          flipAndCrop(flags.seed, epoch),
        );
        await probe.step(rows, labels, epoch);
        progress(`epoch ${epoch + 1} of ${flags.epochs}, image`, Math.min(start + batch, n), n);
      }
      const last = epoch === flags.epochs - 1;
      if ((epoch + 1) % flags.valFreq === 0 || last) {
        const logits = await probe.logits(testRows);
        const scores = logits.map((each, i) => {
          const { top1, top5, loss } = scoreLogits(each, test.labels, classes, batch);
          best[i] = Math.max(best[i], top1);
          return { lr: rates[i], top1, top5, best: best[i], loss };
        });
        history.push({ epoch: epoch + 1, scores });
        const leader = scores.reduce((a, b) => b.top1 > a.top1 ? b : a);
        notice(
          `epoch ${epoch + 1}: top-1 ${leader.top1.toFixed(2)} % at lr ${leader.lr}, loss ${leader.loss.toFixed(4)}`,
        );
      }
      if (flags.out !== null) {
        const state = { weights: await probe.weights(), momenta: await probe.momenta(), steps: probe.steps };
        await writeProbe(flags.out, options, { ...state, epochs: epoch + 1, best, fingerprint }, names);
      }
    }
    const scores = history.at(-1)?.scores ?? await scoreAgain(probe, testRows, test.labels, classes, rates, best);
    await probe.dispose();
    extractor.dispose();
    return {
      value: { split: description, images: n, classes, dim, epochs: flags.epochs, scores, history },
      lines: [
        description,
        ...scores.map(({ lr, top1, top5, best, loss }) =>
          `  lr ${String(lr).padEnd(8)} top-1 ${top1.toFixed(2)} %` +
          (top5 === undefined ? "" : `   top-5 ${top5.toFixed(2)} %`) +
          `   best top-1 ${best.toFixed(2)} %   loss ${loss.toFixed(4)}`
        ),
      ],
    };
  },
};

/** Scores of a run that was complete when it was found. */
async function scoreAgain(
  probe: LinearProbe,
  rows: Float32Array,
  labels: ArrayLike<number>,
  classes: number,
  rates: readonly number[],
  best: readonly number[],
): Promise<Trained[]> {
  return (await probe.logits(rows)).map((logits, i) => {
    const { top1, top5, loss } = scoreLogits(logits, labels, classes, labels.length);
    return { lr: rates[i], top1, top5, best: Math.max(best[i], top1), loss };
  });
}

function gather(rows: Float32Array, places: Uint32Array, dim: number): Float32Array {
  const chosen = new Float32Array(places.length * dim);
  places.forEach((place, i) => chosen.set(rows.subarray(place * dim, (place + 1) * dim), i * dim));
  return chosen;
}

function learningRates(text: string): number[] {
  const rates = text.split(",").map((part) => Number(part.trim()));
  if (rates.some((rate) => !(rate > 0 && Number.isFinite(rate)))) {
    throw new RangeError(`--lr ${text}: wants numbers above 0 with commas between them, such as 0.001,0.003,0.01`);
  }
  return rates;
}

/** Runs the command; returns its exit status. */
export const main = (words: readonly string[]): Promise<number> => runEvaluation(command, words);

if (import.meta.main) Deno.exit(await main(givenArguments()));
