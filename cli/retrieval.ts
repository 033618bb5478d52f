// `dino retrieval`: Revisited Oxford and Paris; runs directly too.

import { raster } from "../models/image/raster.ts";
import { thumbnail } from "../models/image/host_resize.ts";
import type { PixelSource } from "../dino/data/dataset.ts";
import { describeImage, descriptorWidth } from "../dino/eval/retrieval/describe.ts";
import { RETRIEVAL_SCALES } from "../dino/eval/retrieval/descriptors.ts";
import { deviceSearch } from "../dino/eval/knn/device_neighbours.ts";
import { ImageEncoder } from "../dino/eval/encoder.ts";
import { parseGroundTruth, type RetrievalGroundTruth } from "../dino/eval/retrieval/ground_truth.ts";
import { readRaster } from "../dino/eval/image_planes.ts";
import { normalizeRows } from "../dino/eval/knn/knn.ts";
import { type Protocol, PROTOCOLS, scoreRetrieval } from "../dino/eval/retrieval/retrieval.ts";
import { learnWhitening, whiten } from "../dino/eval/retrieval/whitening.ts";
import { boolean, choice, integer, integers, number, text } from "../dino/config/field.ts";
import { runEvaluation } from "./evaluation/run.ts";
import type { EvaluationCommand, EvaluationContext, Values } from "./evaluation/command.ts";
import { givenArguments } from "./processes/mode.ts";

const fields = {
  data: text(null, "folder of the images, database and queries together", { aliases: ["data-path"] }),
  groundTruth: text(null, "gnd_roxford5k.pkl, gnd_rparis6k.pkl, or JSON with imlist, qimlist and gnd"),
  imsize: integer(224, "longer side of an image; larger ones are shrunk, smaller ones stay", {
    min: 1,
    unit: "pixels",
  }),
  multiscale: boolean(false, "mean of the descriptors at scales 1, 0.71 and 0.5"),
  descriptor: choice(["cls", "gem", "rmac"], "cls", "what is compared: [CLS], or patch tokens pooled by GeM or R-MAC"),
  gemPower: number(4, "of GeM: 1 is the mean, larger ones tend to the maximum", { above: 0 }),
  cropQueries: boolean(false, "cut queries to their boxes; the reference takes whole images"),
  whitening: text(null, "folder of other images to learn a PCA whitening from"),
  centerWhitening: boolean(
    false,
    "learn the whitening from centred descriptors; the copy detection of the reference does not",
  ),
  ks: integers([1, 5, 10], "k of precision at k", { min: 1 }),
};
type Flags = Values<typeof fields>;

/** The command. */
export const command: EvaluationCommand<typeof fields> = {
  name: "retrieval",
  usage: "retrieval RUN|WEIGHTS --data DIR --ground-truth gnd_roxford5k.pkl [flags]",
  about: "Ranks a database of images by their similarity to queries: mean average precision, easy, medium and hard.",
  fields,
  sources: ({ data, whitening }) => {
    if (data === null) throw new RangeError("wants the folder of images in --data");
    return {
      data: { path: data, strict: true },
      ...whitening === null ? {} : { whitening: { path: whitening } },
    };
  },
  prepare: async ({ groundTruth }) => {
    if (groundTruth === null) throw new RangeError("wants the ground truth in --ground-truth");
    const bytes = await Deno.readFile(groundTruth).catch((error) => {
      throw error instanceof Deno.errors.NotFound ? new RangeError(`${groundTruth}: no such file`) : error;
    });
    return parseGroundTruth(bytes, groundTruth);
  },
  async evaluate(context, flags) {
    const { backend, sources } = context;
    const truth = context.extra as RetrievalGroundTruth;
    const places = placesOf(sources.data);
    const find = (name: string) => {
      const found = places.get(stem(name));
      if (found === undefined) throw new RangeError(`${sources.data.name}: there is no image called ${name} in it`);
      return found;
    };
    const database = truth.images.map(find), queries = truth.queries.map(find);
    const boxes = flags.cropQueries ? truth.boxes : undefined;
    if (flags.cropQueries && !boxes) throw new RangeError("--crop-queries: the ground truth has no boxes (bbx)");
    const describe = (
      what: string,
      source: PixelSource,
      indices: readonly number[],
      boxes?: RetrievalGroundTruth["boxes"],
    ) => describeAll(context, flags, what, source, indices, boxes);
    let rows = await describe("database images", sources.data, database);
    let asked = await describe("queries", sources.data, queries, boxes);
    let dim = descriptorWidth(context.backbone.embedDim, flags.descriptor);
    if (sources.whitening) {
      const others = Array.from({ length: sources.whitening.length }, (_, i) => i);
      const learned = await learnWhitening(
        backend,
        await describe("whitening images", sources.whitening, others),
        dim,
        {
          centered: flags.centerWhitening,
        },
      );
      rows = await whiten(backend, rows, learned);
      asked = await whiten(backend, asked, learned);
      dim = learned.components;
    }
    const search = deviceSearch(backend);
    const found = await search(normalizeRows(asked, dim), normalizeRows(rows, dim), dim, database.length);
    const rankings = queries.map((_, q) => found.indices.subarray(q * found.k, (q + 1) * found.k));
    const scores = Object.fromEntries(
      (Object.keys(PROTOCOLS) as Protocol[]).map((protocol) => {
        const score = scoreRetrieval(rankings, truth.truths, protocol, flags.ks);
        return [protocol, { mAP: score.meanAveragePrecision, mP: score.meanPrecisionAt, AP: score.averagePrecision }];
      }),
    );
    const percent = (value: number) => (100 * value).toFixed(2);
    return {
      value: { images: database.length, queries: queries.length, ks: flags.ks, ...scores },
      lines: [
        `${database.length} images, ${queries.length} queries`,
        ...Object.entries(scores).map(([protocol, { mAP, mP }]) =>
          `  ${protocol.padEnd(8)} mAP ${percent(mAP)}   mP@${flags.ks.join(",")} ${mP.map(percent).join(" ")}`
        ),
      ],
    };
  },
};

async function describeAll(
  { backend, backbone, parameters, normalization, progress }: EvaluationContext,
  flags: Flags,
  what: string,
  source: PixelSource,
  indices: readonly number[],
  boxes?: RetrievalGroundTruth["boxes"],
): Promise<Float32Array> {
  const encoder = new ImageEncoder(backend, parameters, backbone);
  const dim = descriptorWidth(backbone.embedDim, flags.descriptor);
  const rows = new Float32Array(indices.length * dim);
  for (const [i, index] of indices.entries()) {
    let image = await readRaster(source, index);
    if (boxes) {
      const [x0, y0, x1, y1] = boxes[i].map(Math.round);
      const left = Math.max(0, x0), top = Math.max(0, y0);
      const width = Math.min(image.width, x1) - left, height = Math.min(image.height, y1) - top;
      const data = new Uint8Array(Math.max(0, width * height * 3));
      for (let y = 0; y < height; y++) {
        const from = ((top + y) * image.width + left) * 3;
        data.set(image.data.subarray(from, from + width * 3), y * width * 3);
      }
      image = raster(data, height, width);
    }
    const described = await describeImage(encoder, thumbnail(image, flags.imsize), {
      kind: flags.descriptor,
      power: flags.gemPower,
      normalization,
      scales: flags.multiscale ? RETRIEVAL_SCALES : undefined,
    }).catch((error) => {
      throw error instanceof RangeError ? new RangeError(`${source.id(index)}: ${error.message}`) : error;
    });
    rows.set(described, i * dim);
    progress(what, i + 1, indices.length);
  }
  encoder.dispose();
  return rows;
}

const stem = (path: string) => path.slice(path.lastIndexOf("/") + 1).replace(/\.[^.]*$/, "");

function placesOf(source: PixelSource): Map<string, number> {
  return new Map(Array.from({ length: source.length }, (_, i) => [stem(source.id(i)), i]));
}

/** Runs the command; returns its exit status. */
export const main = (words: readonly string[]): Promise<number> => runEvaluation(command, words);

if (import.meta.main) Deno.exit(await main(givenArguments()));
