// `dino features`: writes features of images to a safetensors, npy or npz file; runs directly too.

import { cropMultiple } from "../models/backbone.ts";
import type { Raster } from "../models/image/raster.ts";
import { writeTextAtomically } from "../models/weights/atomic_file.ts";
import { writeNpy, writeNpz } from "../models/weights/npy.ts";
import { resizedTo } from "../models/weights/preprocessing.ts";
import { writeSafetensors } from "../models/weights/safetensors.ts";
import type { PixelSource } from "../dino/data/dataset.ts";
import { meanOverScales, RETRIEVAL_SCALES } from "../dino/eval/retrieval/descriptors.ts";
import { ImageEncoder } from "../dino/eval/encoder.ts";
import { FeatureExtractor, preparedCrop } from "../dino/eval/features.ts";
import {
  centralRaster,
  fitShorterSide,
  normalizedPlanes,
  preparedRaster,
  readRaster,
} from "../dino/eval/image_planes.ts";
import type { LinearFeatureOptions } from "../dino/eval/linear/features.ts";
import { resizeBilinear } from "../dino/eval/resize_bilinear.ts";
import { boolean, choice, integer, text } from "../dino/config/field.ts";
import { runEvaluation } from "./evaluation/run.ts";
import type { EvaluationCommand, EvaluationContext, Values } from "./evaluation/command.ts";
import { checkCropSize } from "./evaluation/crop_size.ts";
import { givenArguments } from "./processes/mode.ts";

const fields = {
  data: text(null, "folder, list, archive or image; without it the embedded sample", { aliases: ["data-path"] }),
  out: text(
    "features.safetensors",
    "file to write: .safetensors, .npz (names then in a .json beside it) or .npy (labels there, too)",
  ),
  lastBlocks: integer(1, "blocks whose [CLS] is taken, counted from the last", {
    min: 1,
    aliases: ["n-last-blocks"],
  }),
  patchAverage: choice(
    ["none", "interleaved", "concatenated"],
    "none",
    "the mean of the patch tokens as well; interleaved is the reference's order, for one block",
  ),
  tokens: boolean(false, "all patch tokens of the last block instead, [CLS] first"),
  cropSize: integer(
    null,
    "side of the central crop; auto: what the file of weights says, or what the network was trained on",
    {
      min: 1,
      unit: "pixels",
    },
  ),
  keepAspect: boolean(
    false,
    "whole images, their shorter side at --crop-size, cut to whole patches, instead of a crop",
  ),
  multiscale: boolean(false, "with --keep-aspect: the mean over scales 1, 0.71 and 0.5, of length 1"),
  batchSize: integer(64, "images of one pass", { min: 1, unit: "images" }),
  limit: integer(null, "use the first N images only", { min: 1, unit: "images" }),
};
type Flags = Values<typeof fields>;

/** The command. */
export const command: EvaluationCommand<typeof fields> = {
  name: "features",
  usage: "features RUN|WEIGHTS --data DIR --out features.safetensors [flags]",
  about: "Writes one row of features for each image, with file names and labels, for use elsewhere.",
  fields,
  sources: ({ data, limit }) => ({ data: { path: data, limit: limit ?? undefined } }),
  prepare: ({ out, multiscale, keepAspect, tokens, patchAverage, lastBlocks }) => {
    if (!/\.(safetensors|npy|npz)$/i.test(out)) {
      throw new RangeError(`--out ${out}: name a .safetensors, .npy or .npz file`);
    }
    if (multiscale && !keepAspect) throw new RangeError("--multiscale goes with --keep-aspect");
    if (tokens && (multiscale || patchAverage !== "none" || lastBlocks !== 1)) {
      throw new RangeError("--tokens: are those of the last block as they are: leave the other flags out");
    }
    return Promise.resolve();
  },
  async evaluate(context, flags) {
    const source = context.sources.data;
    const rows = flags.keepAspect || flags.tokens ? await encodeEach(context, flags) : await extract(context, flags);
    const names = Array.from({ length: rows.count }, (_, i) => source.id(i));
    const labels = source.labels?.subarray(0, rows.count);
    await write(flags.out, rows, names, labels, source.classNames, context);
    return {
      value: { out: flags.out, images: rows.count, shape: rows.shape },
      lines: [`${flags.out}: ${rows.shape.join(" × ")} features of ${rows.count} images`],
    };
  },
};

interface Rows {
  readonly data: Float32Array;
  readonly shape: readonly number[];
  readonly count: number;
}

/** Central crops in batches. */
async function extract(context: EvaluationContext, flags: Flags): Promise<Rows> {
  const { backend, backbone, parameters, normalization, sources: { data }, signal, progress } = context;
  const cropSize = checkCropSize(flags.cropSize, backbone, context.preprocessing);
  const prepared = context.preprocessing && resizedTo(context.preprocessing, cropSize);
  const count = Math.min(data.length, flags.limit ?? Infinity);
  const extractor = await FeatureExtractor.create(backend, parameters, {
    backbone,
    cropSize,
    normalization,
    batch: Math.min(flags.batchSize, count),
    sources: [data],
    features: featureOptions(flags),
  });
  const indices = Uint32Array.from({ length: count }, (_, i) => i);
  const rows = await extractor.extract(
    data,
    indices,
    signal,
    prepared && preparedCrop(prepared, cropSize),
    (done) => progress("images", done, count),
  );
  extractor.dispose();
  return { data: rows, shape: [count, rows.length / count], count };
}

const featureOptions = ({ lastBlocks, patchAverage }: Flags): LinearFeatureOptions => ({ lastBlocks, patchAverage });

/** One image after the other, each at its own size. */
async function encodeEach(context: EvaluationContext, flags: Flags): Promise<Rows> {
  const { backend, backbone, parameters, normalization, sources: { data }, progress } = context;
  const count = Math.min(data.length, flags.limit ?? Infinity);
  const side = checkCropSize(flags.cropSize, backbone, context.preprocessing);
  const prepared = context.preprocessing && resizedTo(context.preprocessing, side);
  const crop = (image: Raster) => prepared ? preparedRaster(image, prepared) : centralRaster(image, side);
  const encoder = new ImageEncoder(backend, parameters, backbone);
  const wanted = flags.tokens ? { tokens: true } : { features: featureOptions(flags) };
  const rows: Float32Array[] = [];
  for (let i = 0; i < count; i++) {
    const image = await readRaster(data, i);
    const fitted = flags.keepAspect ? fitShorterSide(image, side, cropMultiple(backbone)) : crop(image);
    const planes = normalizedPlanes(fitted, normalization);
    const scales = flags.multiscale ? RETRIEVAL_SCALES : [1];
    const found: Float32Array[] = [];
    for (const scale of scales) {
      const { height, width } = fitted;
      const resized = scale === 1 ? { data: planes, height, width } : resizeBilinear(planes, 3, height, width, scale);
      const encoded = await encoder.encode(resized.data, 1, resized.height, resized.width, wanted);
      found.push((encoded.tokens ?? encoded.features)!);
    }
    rows.push(flags.multiscale ? meanOverScales(found) : found[0]);
    progress("images", i + 1, count);
  }
  encoder.dispose();
  const length = rows[0].length;
  if (rows.some((row) => row.length !== length)) {
    throw new RangeError("--tokens: the images have different numbers of patches: leave --keep-aspect out");
  }
  const joined = new Float32Array(count * length);
  rows.forEach((row, i) => joined.set(row, i * length));
  const D = backbone.embedDim;
  return { data: joined, shape: flags.tokens ? [count, length / D, D] : [count, length], count };
}

async function write(
  out: string,
  rows: Rows,
  names: string[],
  labels: Int32Array | undefined,
  classNames: PixelSource["classNames"],
  { weightsPath }: EvaluationContext,
): Promise<void> {
  const bytes = (a: ArrayBufferView) => new Uint8Array(a.buffer, a.byteOffset, a.byteLength);
  const tensors = [
    { name: "features", dtype: "F32" as const, shape: rows.shape, bytes: () => bytes(rows.data) },
    ...labels ? [{ name: "labels", dtype: "I32" as const, shape: [rows.count], bytes: () => bytes(labels) }] : [],
  ];
  const numpy = /\.np[yz]$/i;
  if (numpy.test(out)) {
    const single = /y$/i.test(out);
    await (single ? writeNpy(out, tensors[0]) : writeNpz(out, tensors));
    const beside = { names, ...(single ? { labels: labels && [...labels] } : {}), classNames, weights: weightsPath };
    await writeTextAtomically(out.replace(numpy, ".json"), JSON.stringify(beside) + "\n");
    return;
  }
  const metadata: Record<string, string> = { names: JSON.stringify(names), weights: weightsPath };
  if (classNames) metadata.classNames = JSON.stringify(classNames);
  await writeSafetensors(out, tensors, metadata);
}

/** Runs the command; returns its exit status. */
export const main = (words: readonly string[]): Promise<number> => runEvaluation(command, words);

if (import.meta.main) Deno.exit(await main(givenArguments()));
