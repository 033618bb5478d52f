// `dino search`: an index of a folder of images, its nearest neighbours and near-duplicates; runs directly too.

import { writeFileAtomically } from "../models/weights/atomic_file.ts";
import type { PixelSource } from "../dino/data/dataset.ts";
import { isImageName } from "../dino/data/decode.ts";
import { deviceSearch } from "../dino/eval/knn/device_neighbours.ts";
import { FeatureExtractor } from "../dino/eval/features.ts";
import {
  contactSheet,
  type ImageIndex,
  nearDuplicates,
  readIndex,
  squareThumbnail,
  THUMBNAIL_SIDE,
  weightsFingerprint,
  writeIndex,
} from "../dino/eval/retrieval/image_index.ts";
import { readRaster } from "../dino/eval/image_planes.ts";
import { normalizeRows } from "../dino/eval/knn/knn.ts";
import { loadWeights } from "../dino/load_weights.ts";
import { integer, number, text } from "../dino/config/field.ts";
import { checkCropSize } from "./evaluation/crop_size.ts";
import { runEvaluation } from "./evaluation/run.ts";
import type { EvaluationCommand, EvaluationContext, SourceRequest, Values } from "./evaluation/command.ts";
import { givenArguments } from "./processes/mode.ts";
import { refuseUnwritableFile } from "./evaluation/output_folder.ts";
import { encodePng } from "./report/png.ts";

const fields = {
  data: text(null, "images to build the index of; an index of that name is replaced", { aliases: ["data-path"] }),
  k: integer(8, "nearest images shown of each query", { min: 1 }),
  duplicates: number(null, "list pairs of indexed images at least this similar; 0.95 finds altered copies", {
    above: 0,
    max: 1,
  }),
  sheet: text(null, "PNG file for the results: each query, then its nearest images"),
  cropSize: integer(null, "side of the central crop; auto: what the network was trained on", {
    min: 1,
    unit: "pixels",
  }),
  batchSize: integer(64, "images of one pass", { min: 1, unit: "images" }),
};
type Flags = Values<typeof fields> & { readonly words: readonly string[] };

/** Near-duplicates looked for among this many nearest. */
const DUPLICATES_DEPTH = 16;

/** The command. */
export const command: EvaluationCommand<typeof fields> = {
  name: "search",
  usage: "search INDEX [QUERY…] [--data DIR --weights RUN|WEIGHTS] [flags]",
  about:
    "Builds an index of images (with --data and --weights), and finds the nearest of them to query images, or pairs " +
    "that look alike (with --duplicates).",
  fields,
  async readWords(positional, { weights, data }) {
    const [index, ...queries] = positional;
    if (index === undefined) throw new RangeError("wants the file of an index: search INDEX --data DIR --weights RUN");
    if (weights !== null) return { weights, words: [index, ...queries] };
    if (data !== null) throw new RangeError("--data wants the weights to build the index with in --weights");
    return { weights: (await readIndex(index)).weights, words: [index, ...queries] };
  },
  sources: (flags) => {
    const [, ...queries] = (flags as Flags).words;
    const sources: Record<string, SourceRequest> = {};
    if (flags.data !== null) sources.data = { path: flags.data };
    if (queries.length === 0) return sources;
    if (queries.length > 1 && !queries.every(isImageName)) {
      throw new RangeError(`query ${queries.find((query) => !isImageName(query))}: name images, or one folder of them`);
    }
    const files = queries.length > 1 ? [...new Set(queries)] : undefined;
    sources.queries = { path: queries[0], files, strict: true };
    return sources;
  },
  prepare: async (flags) => {
    const { words, data, duplicates, sheet } = flags as Flags;
    if (data === null && words.length === 1 && duplicates === null) {
      throw new RangeError("nothing to do: name a query, or --duplicates 0.95, or --data to build the index");
    }
    if (sheet !== null && words.length === 1) throw new RangeError("--sheet shows the results of queries: name one");
    if (sheet !== null && !/\.png$/i.test(sheet)) throw new RangeError(`--sheet ${sheet}: name a .png file`);
    if (data !== null) await refuseUnwritableFile(words[0], words[0]);
  },
  async evaluate(context, given) {
    const flags = given as Flags;
    const { sources: { data, queries }, backend } = context;
    const fingerprint = weightsFingerprint(await loadWeights(context.weightsPath, context.network));
    const [path] = flags.words;
    const lines: string[] = [], value: Record<string, unknown> = { index: path };
    let index: ImageIndex;
    if (data) {
      index = await build(context, flags, data, fingerprint);
      await writeIndex(path, index);
      lines.push(`${path}: ${index.names.length} images indexed`);
    } else index = await readIndex(path);
    if (index.fingerprint !== fingerprint) {
      throw new RangeError(
        `${path}: was built with other weights than ${context.weightsPath}: build it again with --data`,
      );
    }
    value.images = index.names.length;
    const search = deviceSearch(backend);
    if (queries) {
      const asked = await featuresOf(context, flags, queries, index.cropSize);
      const k = Math.min(flags.k, index.names.length);
      const found = await search(asked, index.features, index.dim, k);
      const nearest = (q: number) =>
        Array.from({ length: k }, (_, i) => ({
          name: index.names[found.indices[q * k + i]],
          similarity: found.similarities[q * k + i],
        }));
      const results = Array.from({ length: queries.length }, (_, q) => ({ query: queries.id(q), nearest: nearest(q) }));
      value.results = results;
      for (const { query, nearest } of results) {
        lines.push(query, ...nearest.map(({ name, similarity }) => `  ${similarity.toFixed(4)}  ${name}`));
      }
      if (flags.sheet !== null) {
        const rows = [];
        for (let q = 0; q < queries.length; q++) {
          const asked = squareThumbnail(await readRaster(queries, q));
          rows.push([asked, ...Array.from({ length: k }, (_, i) => thumbnail(index, found.indices[q * k + i]))]);
        }
        const { data, height, width } = contactSheet(rows);
        await writeFileAtomically(flags.sheet, (write) => write(encodePng(data, height, width)));
        lines.push(`${flags.sheet}: ${results.length} queries`);
      }
    }
    if (flags.duplicates !== null) {
      const depth = Math.min(DUPLICATES_DEPTH, index.names.length);
      const found = await search(index.features, index.features, index.dim, depth);
      const pairs = nearDuplicates(found, flags.duplicates).map(({ first, second, similarity }) => ({
        first: index.names[first],
        second: index.names[second],
        similarity,
      }));
      value.duplicates = pairs;
      lines.push(`${pairs.length} pairs at least ${flags.duplicates} similar`);
      lines.push(...pairs.map(({ first, second, similarity }) => `  ${similarity.toFixed(4)}  ${first}  ${second}`));
    }
    return { value, lines };
  },
};

async function build(
  context: EvaluationContext,
  flags: Flags,
  data: PixelSource,
  fingerprint: string,
): Promise<ImageIndex> {
  const cropSize = checkCropSize(flags.cropSize, context.backbone);
  const features = await featuresOf(context, flags, data, cropSize);
  const bytes = THUMBNAIL_SIDE ** 2 * 3;
  const thumbnails = new Uint8Array(data.length * bytes);
  const names: string[] = [];
  for (let i = 0; i < data.length; i++) {
    thumbnails.set(squareThumbnail(await readRaster(data, i)), i * bytes);
    names.push(data.id(i));
    context.progress("thumbnails", i + 1, data.length);
  }
  const dim = features.length / data.length;
  return { names, dim, features, thumbnails, cropSize, fingerprint, weights: await Deno.realPath(context.weightsPath) };
}

async function featuresOf(
  { backend, backbone, parameters, normalization, signal, progress }: EvaluationContext,
  flags: Flags,
  source: PixelSource,
  cropSize: number,
): Promise<Float32Array> {
  const batch = Math.min(flags.batchSize, source.length);
  const options = { backbone, cropSize, normalization, batch, sources: [source] };
  const extractor = await FeatureExtractor.create(backend, parameters, options);
  const rows = await extractor.extract(
    source,
    undefined,
    signal,
    undefined,
    (done) => progress("images", done, source.length),
  );
  extractor.dispose();
  return normalizeRows(rows, extractor.width);
}

function thumbnail({ thumbnails }: ImageIndex, i: number): Uint8Array {
  const bytes = THUMBNAIL_SIDE ** 2 * 3;
  return thumbnails.subarray(i * bytes, (i + 1) * bytes);
}

/** Runs the command; returns its exit status. */
export const main = (words: readonly string[]): Promise<number> => runEvaluation(command, words);

if (import.meta.main) Deno.exit(await main(givenArguments()));
