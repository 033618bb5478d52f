// `dino finetune`: trains a network's backbone and a classifier on labelled images; runs directly too.

import { backboneBufferShapes, backboneShapes } from "../models/backbone.ts";
import { epochPermutation } from "../models/rng.ts";
import { pixelExtremes } from "../dino/crop_feed.ts";
import { prefetch } from "../dino/data/prefetch.ts";
import { linearLogits, scoreLogits } from "../dino/eval/classification.ts";
import { FeatureExtractor } from "../dino/eval/features.ts";
import { Finetuner } from "../dino/eval/finetune/finetune.ts";
import { readFinetuned, writeFinetuned } from "../dino/eval/finetune/checkpoint.ts";
import { flipAndCrop } from "../dino/eval/probe_crops.ts";
import { scaleLr } from "../dino/schedule.ts";
import { integer, number, text } from "../dino/config/field.ts";
import { checkCropSize } from "./evaluation/crop_size.ts";
import { runEvaluation } from "./evaluation/run.ts";
import type { EvaluationCommand } from "./evaluation/command.ts";
import { classCount, labelledSources, labelledSplit } from "./evaluation/labelled_halves.ts";
import { givenArguments } from "./processes/mode.ts";

const WARMUP_EPOCHS = 3;

const fields = {
  data: text(null, "labelled training images; without it the embedded sample", { aliases: ["data-path"] }),
  val: text(null, "labelled images to classify; without it the val half of --data, or else a seeded tenth"),
  out: text(null, "file for the network, .safetensors, written after every epoch; an interrupted run goes on from it"),
  epochs: integer(30, "passes over the training images", { min: 1 }),
  warmupEpochs: integer(null, `of which the learning rate rises; auto: ${WARMUP_EPOCHS}, or half of a shorter run`, {
    min: 0,
  }),
  lr: number(5e-4, "peak learning rate for a batch of 512", { above: 0 }),
  minLr: number(1e-6, "learning rate at the end", { min: 0 }),
  weightDecay: number(0.05, "AdamW's", { min: 0 }),
  layerDecay: number(0.75, "share of the rate that each layer has of the one above; 1: all alike", {
    above: 0,
    max: 1,
  }),
  dropPath: number(0.1, "stochastic depth of the last block", { min: 0, max: 0.99 }),
  mixup: number(0.8, "images are mixed in pairs with shares from Beta(N, N), at most 1; 0: not", { min: 0, max: 1 }),
  cutmix: number(1, "or each gets a rectangle of another, of an area from Beta(N, N), at most 1; 0: not", {
    min: 0,
    max: 1,
  }),
  randAugment: number(9, "magnitude of RandAugment, two of fifteen operations an image; 0: none", { min: 0, max: 10 }),
  erasing: number(0.25, "probability that a rectangle of an image becomes noise", { min: 0, max: 1 }),
  averageDecay: number(0, "what a running average of the network keeps at an update, such as 0.999; 0: no average", {
    min: 0,
    max: 0.99999999,
  }),
  labelSmoothing: number(0.1, "share of a label spread over all classes", { min: 0, max: 0.99 }),
  batchSize: integer(64, "images of an update", { min: 1, unit: "images" }),
  cropSize: integer(null, "side of the crop; auto: what the network was trained on", { min: 1, unit: "pixels" }),
  limit: integer(null, "use the first N training images only", { min: 1, unit: "images" }),
  seed: integer(0, "of the classifier, order, crops, mixing and depth", { min: 0, max: 2 ** 32 - 1 }),
};

/** The command. */
export const command: EvaluationCommand<typeof fields> = {
  name: "finetune",
  usage: "finetune RUN|WEIGHTS --data DIR [--val DIR] --out tuned.safetensors [flags]",
  about:
    "Fine-tunes the whole network on labelled images, as DeiT is trained: AdamW, RandAugment, erasing, mixup and CutMix, " +
    "smoothed labels, stochastic depth. Small images and short runs want less of it: --rand-augment 0 --erasing 0.",
  fields,
  sources: labelledSources,
  prepare: ({ out, epochs, warmupEpochs }) => {
    if (out !== null && !out.endsWith(".safetensors")) throw new RangeError(`--out ${out}: name a .safetensors file`);
    if ((warmupEpochs ?? 0) > epochs) {
      throw new RangeError(`--warmup-epochs ${warmupEpochs} exceeds --epochs ${epochs}`);
    }
    return Promise.resolve();
  },
  async evaluate(context, flags) {
    const { backend, backbone, parameters, batchCounts, normalization, sources, signal, progress, notice } = context;
    const split = labelledSplit(sources, flags.seed);
    const { train, test } = split;
    const classNames = train.source.classNames;
    const classes = classCount(split);
    const cropSize = checkCropSize(flags.cropSize, backbone);
    const n = train.indices.length, batch = Math.min(flags.batchSize, n);
    const stepsPerEpoch = Math.ceil(n / batch);
    const weights = new Map<string, Float32Array>();
    const options = {
      backbone,
      normalization,
      classes,
      cropSize,
      batch,
      steps: flags.epochs * stepsPerEpoch,
      warmup: (flags.warmupEpochs ?? Math.min(WARMUP_EPOCHS, Math.floor(flags.epochs / 2))) * stepsPerEpoch,
      lr: scaleLr(flags.lr, batch, 512),
      minLr: flags.minLr,
      weightDecay: flags.weightDecay,
      layerDecay: flags.layerDecay,
      dropPath: flags.dropPath,
      mixup: flags.mixup,
      cutmix: flags.cutmix,
      randAugment: flags.randAugment,
      erasing: flags.erasing,
      averageDecay: flags.averageDecay,
      labelSmoothing: flags.labelSmoothing,
      seed: flags.seed,
    };
    for (const [name] of [...backboneShapes(backbone), ...backboneBufferShapes(backbone)]) {
      weights.set(name, await backend.read(parameters(name)) as Float32Array);
    }
    const extremes = pixelExtremes(train.source);
    const tuner = await Finetuner.create(backend, options, extremes, (name) => weights.get(name)!, batchCounts);
    const { segments } = tuner.parameters;
    const layout = { segments, buffers: tuner.buffers.segments };
    const fingerprint = JSON.stringify([train.source.fingerprint, context.weightsPath, options]);
    const found = flags.out === null ? undefined : await readFinetuned(flags.out, layout, fingerprint);
    if (found) {
      tuner.restore(found.state);
      notice(`${flags.out}: going on after epoch ${found.epochs}`);
    }
    const extractor = await FeatureExtractor.create(backend, tuner.backbone, {
      backbone,
      cropSize,
      normalization,
      batch: Math.min(flags.batchSize, test.indices.length),
      sources: [test.source],
    });
    const validate = async () => {
      const rows = await extractor.extract(test.source, test.indices, signal);
      const { average, parameters } = await tuner.state();
      const part = (name: string) => {
        const { offset, length } = segments.find((s) => s.name === name)!;
        return (average.length > 0 ? average : parameters).subarray(offset, offset + length);
      };
      const logits = linearLogits(rows, part("classifier.weight"), part("classifier.bias"));
      return scoreLogits(logits, test.labels, classes, batch);
    };
    const history: { epoch: number; loss: number; top1: number; top5?: number; valLoss: number }[] = [];
    let best = found?.best ?? 0;
    for (let epoch = found?.epochs ?? 0; epoch < flags.epochs; epoch++) {
      const order = epochPermutation(n, flags.seed, epoch);
      const choose = flipAndCrop(flags.seed, epoch, "bicubic");
      const batches = Array.from(
        { length: stepsPerEpoch },
        (_, s) => Uint32Array.from({ length: batch }, (_, i) => train.indices[order[Math.min(s * batch + i, n - 1)]]),
      );
      let at = 0, loss = 0;
      for await (const pixels of prefetch(train.source, batches)) {
        const places = order.subarray(at * batch, Math.min((at + 1) * batch, n));
        const crops = Array.from(
          { length: batch },
          (_, i) => choose(i, pixels.table[3 * i + 1], pixels.table[3 * i + 2], batches[at][i]),
        );
        await tuner.update(pixels, crops, Int32Array.from(places, (i) => train.labels[i]));
        at++;
        progress(`epoch ${epoch + 1} of ${flags.epochs}, image`, Math.min(at * batch, n), n);
        if (at === stepsPerEpoch) loss = await tuner.loss(places.length);
      }
      const { top1, top5, loss: valLoss } = await validate();
      if (!Number.isFinite(valLoss)) throw new Error(`epoch ${epoch + 1}: the loss is no number: lower --lr`);
      best = Math.max(best, top1);
      history.push({ epoch: epoch + 1, loss, top1, top5, valLoss });
      notice(`epoch ${epoch + 1}: top-1 ${top1.toFixed(2)} %, loss ${valLoss.toFixed(4)}`);
      if (flags.out !== null) {
        const checkpoint = { state: await tuner.state(), epochs: epoch + 1, best, fingerprint };
        await writeFinetuned(flags.out, layout, { ...backbone }, checkpoint, classNames);
      }
    }
    const last = history.at(-1) ?? await validate();
    extractor.dispose();
    tuner.dispose();
    return {
      value: { out: flags.out, images: n, classes, top1: last.top1, top5: last.top5, best, history },
      lines: [
        `${test.indices.length} images of ${test.source.name}: top-1 ${last.top1.toFixed(2)} %` +
        `${last.top5 === undefined ? "" : `   top-5 ${last.top5.toFixed(2)} %`}   best top-1 ${best.toFixed(2)} %`,
        ...flags.out === null ? [] : [`${flags.out}: the network`],
      ],
    };
  },
};

/** Runs the command; returns its exit status. */
export const main = (words: readonly string[]): Promise<number> => runEvaluation(command, words);

if (import.meta.main) Deno.exit(await main(givenArguments()));
