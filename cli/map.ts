// `dino map`: images on a plane by their features, as an interactive page; runs directly too.

import { writeTextAtomically } from "../models/weights/atomic_file.ts";
import { FeatureExtractor } from "../dino/eval/features.ts";
import { squareThumbnail } from "../dino/eval/retrieval/image_index.ts";
import { readRaster } from "../dino/eval/image_planes.ts";
import { normalizeRows } from "../dino/eval/knn/knn.ts";
import { principalComponents } from "../dino/eval/pictures/principal_components.ts";
import { tsneMap } from "../dino/eval/pictures/tsne.ts";
import { integer, number, text } from "../dino/config/field.ts";
import { checkCropSize } from "./evaluation/crop_size.ts";
import { runEvaluation } from "./evaluation/run.ts";
import type { EvaluationCommand } from "./evaluation/command.ts";
import { givenArguments } from "./processes/mode.ts";
import { mapPage } from "./report/map_page.ts";

const fields = {
  data: text(null, "images; without it the embedded sample", { aliases: ["data-path"] }),
  out: text("map.html", "file for the page"),
  limit: integer(1000, "use the first N images only: t-SNE compares every pair", { min: 3, unit: "images" }),
  perplexity: number(20, "neighbours that each image keeps near, roughly", { above: 0 }),
  learningRate: number(null, "of t-SNE; auto: 200, less for fewer than a thousand images", { above: 0 }),
  iterations: integer(500, "of t-SNE; 0: principal components only", { min: 0 }),
  cropSize: integer(null, "side of the central crop; auto: what the network was trained on", {
    min: 1,
    unit: "pixels",
  }),
  batchSize: integer(64, "images of one pass", { min: 1, unit: "images" }),
};

/** Side of the pictures in the page, which shows them twice as large. */
const PICTURE_SIDE = 32;

/** The command. */
export const command: EvaluationCommand<typeof fields> = {
  name: "map",
  usage: "map RUN|WEIGHTS --data DIR --out map.html [flags]",
  about:
    "Places images on a plane so that those with similar features lie together (t-SNE and principal components), in " +
    "a page where each can be looked at.",
  fields,
  sources: ({ data, limit }) => ({ data: { path: data, limit } }),
  prepare: ({ out }) => {
    if (!/\.html?$/i.test(out)) throw new RangeError(`--out ${out}: name an .html file`);
    return Promise.resolve();
  },
  async evaluate({ backend, backbone, parameters, normalization, sources: { data }, signal, progress }, flags) {
    const n = data.length;
    if (n < 3) throw new RangeError(`${data.name}: ${n} images: a map wants at least three`);
    const extractor = await FeatureExtractor.create(backend, parameters, {
      backbone,
      cropSize: checkCropSize(flags.cropSize, backbone),
      normalization,
      batch: Math.min(flags.batchSize, n),
      sources: [data],
    });
    const rows = await extractor.extract(data, undefined, signal, undefined, (done) => progress("images", done, n));
    const dim = extractor.width;
    extractor.dispose();
    const features = normalizeRows(rows, dim);
    const layouts = [{ name: "principal components", points: principalComponents(features, dim, 2) }];
    const { perplexity, iterations } = flags;
    const learningRate = flags.learningRate ?? undefined;
    if (iterations > 0) {
      const onIteration = (i: number) => progress("t-SNE", i, iterations);
      layouts.unshift({
        name: "t-SNE",
        points: await tsneMap(features, dim, { perplexity, learningRate, iterations, onIteration }),
      });
    }
    const thumbnails = new Uint8Array(n * PICTURE_SIDE ** 2 * 3);
    for (let i = 0; i < n; i++) {
      thumbnails.set(squareThumbnail(await readRaster(data, i), PICTURE_SIDE), i * PICTURE_SIDE ** 2 * 3);
    }
    const page = mapPage({
      title: `${n} images of ${data.name}`,
      names: Array.from({ length: n }, (_, i) => data.id(i)),
      labels: data.labels?.subarray(0, n),
      classNames: data.classNames,
      layouts,
      thumbnails,
      side: PICTURE_SIDE,
    });
    await writeTextAtomically(flags.out, page);
    return { value: { out: flags.out, images: n }, lines: [`${flags.out}: a map of ${n} images`] };
  },
};

/** Runs the command; returns its exit status. */
export const main = (words: readonly string[]): Promise<number> => runEvaluation(command, words);

if (import.meta.main) Deno.exit(await main(givenArguments()));
