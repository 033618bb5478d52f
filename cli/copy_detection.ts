// `dino copy_detection`: finds the originals of altered copies, by the protocol of Copydays; runs directly too.

import { resize } from "../models/image/resample.ts";
import type { PixelSource } from "../dino/data/dataset.ts";
import { COPY_DETECTION_DEPTH, copydaysBlock, scoreCopies } from "../dino/eval/retrieval/copy_detection.ts";
import { describeImage, descriptorWidth } from "../dino/eval/retrieval/describe.ts";
import { deviceSearch } from "../dino/eval/knn/device_neighbours.ts";
import { ImageEncoder } from "../dino/eval/encoder.ts";
import { readRaster } from "../dino/eval/image_planes.ts";
import { normalizeRows } from "../dino/eval/knn/knn.ts";
import { learnWhitening, whiten } from "../dino/eval/retrieval/whitening.ts";
import { boolean, choice, integer, number, text } from "../dino/config/field.ts";
import { checkCropSize } from "./evaluation/crop_size.ts";
import { runEvaluation } from "./evaluation/run.ts";
import type { EvaluationCommand, EvaluationContext } from "./evaluation/command.ts";
import { givenArguments } from "./processes/mode.ts";

const fields = {
  data: text(null, "folder with original/ and the blocks of copies beside it: strong/, jpegqual/15/, crops/50/ …", {
    aliases: ["data-path"],
  }),
  distractors: text(null, "folder of images that are copies of nothing (the reference: 10 000 of YFCC)", {
    aliases: ["distractors-path"],
  }),
  whitening: text(null, "folder of other images to learn a PCA whitening from (the reference: 20 000 of YFCC)", {
    aliases: ["whitening-path"],
  }),
  centerWhitening: boolean(
    false,
    "learn it from centred descriptors; the reference does not, published numbers depend on it",
  ),
  imsize: integer(320, "side of the square every image is resized to", { min: 1, unit: "pixels" }),
  descriptor: choice(["cls+gem", "cls", "gem", "rmac"], "cls+gem", "what is compared"),
  gemPower: number(4, "of GeM: 1 is the mean, larger ones tend to the maximum", { above: 0 }),
};

/** The command. */
export const command: EvaluationCommand<typeof fields> = {
  name: "copy_detection",
  usage: "copy_detection RUN|WEIGHTS --data COPYDAYS [--distractors DIR] [--whitening DIR] [flags]",
  about: "Searches the original of each altered image among originals and distractors; mean average precision of the " +
    `${COPY_DETECTION_DEPTH} first, for each kind of alteration.`,
  fields,
  sources: ({ data, distractors, whitening }) => {
    if (data === null) throw new RangeError("wants the folder with original/ and the copies in --data");
    return {
      data: { path: data, strict: true },
      ...distractors === null ? {} : { distractors: { path: distractors } },
      ...whitening === null ? {} : { whitening: { path: whitening } },
    };
  },
  async evaluate(context, flags) {
    const { backend, backbone, sources } = context;
    const side = checkCropSize(flags.imsize, backbone, undefined, "--imsize");
    const kind = flags.descriptor;
    let dim = descriptorWidth(backbone.embedDim, kind);
    const blocks = blocksOf(sources.data);
    const originals = blocks.get("original");
    if (!originals) throw new RangeError(`${sources.data.name}: has no folder original/ with the unaltered images`);
    blocks.delete("original");
    const names = originals.map((i) => sources.data.id(i));
    // Originals are queries of their own block too, as in the reference.
    const scored = [["original", originals] as const, ...blocks].map(([name, indices]) => ({
      block: copydaysBlock(name, indices.map((i) => sources.data.id(i)), names),
      indices,
    }));
    const encoder = new ImageEncoder(backend, context.parameters, backbone);
    const describe = (what: string, source: PixelSource, indices?: readonly number[]) =>
      describeAll(context, encoder, what, source, indices, side, kind, flags.gemPower);
    let database = await describe("originals", sources.data, originals);
    if (sources.distractors) {
      const more = await describe("distractors", sources.distractors);
      const both = new Float32Array(database.length + more.length);
      both.set(database);
      both.set(more, database.length);
      database = both;
    }
    let queries = await describe("copies", sources.data, scored.flatMap(({ indices }) => indices));
    if (sources.whitening) {
      const learned = await learnWhitening(backend, await describe("whitening images", sources.whitening), dim, {
        centered: flags.centerWhitening,
      });
      database = await whiten(backend, database, learned);
      queries = await whiten(backend, queries, learned);
      dim = learned.components;
    }
    encoder.dispose();
    const count = database.length / dim;
    const k = Math.min(COPY_DETECTION_DEPTH, count);
    const found = await deviceSearch(backend)(normalizeRows(queries, dim), normalizeRows(database, dim), dim, k);
    let start = 0;
    const scores = scored.map(({ block }) => {
      const { name, meanAveragePrecision, averagePrecision } = scoreCopies(block, found, start);
      start += block.files.length;
      return { name, queries: block.files.length, mAP: meanAveragePrecision, AP: averagePrecision };
    });
    return {
      value: { database: count, originals: originals.length, blocks: scores },
      lines: [
        `${count} images in the database, ${originals.length} of them originals`,
        ...scores.map(({ name, queries, mAP }) =>
          `  ${name.padEnd(20)} mAP ${(100 * mAP).toFixed(2)}   (${queries} queries)`
        ),
      ],
    };
  },
};

async function describeAll(
  { normalization, progress }: EvaluationContext,
  encoder: ImageEncoder,
  what: string,
  source: PixelSource,
  indices: readonly number[] = Array.from({ length: source.length }, (_, i) => i),
  side: number,
  kind: typeof fields.descriptor.default,
  power: number,
): Promise<Float32Array> {
  const dim = descriptorWidth(encoder.config.embedDim, kind);
  const rows = new Float32Array(indices.length * dim);
  for (const [i, index] of indices.entries()) {
    const image = resize(await readRaster(source, index), side, side, "bicubic");
    rows.set(await describeImage(encoder, image, { kind, power, normalization }), i * dim);
    progress(what, i + 1, indices.length);
  }
  return rows;
}

/** Images by the folder they lie in, in the order of their names. */
function blocksOf(source: PixelSource): Map<string, number[]> {
  const blocks = new Map<string, number[]>();
  for (let i = 0; i < source.length; i++) {
    const id = source.id(i);
    const at = id.lastIndexOf("/");
    const folder = at < 0 ? "" : id.slice(0, at);
    blocks.set(folder, [...blocks.get(folder) ?? [], i]);
  }
  return blocks;
}

/** Runs the command; returns its exit status. */
export const main = (words: readonly string[]): Promise<number> => runEvaluation(command, words);

if (import.meta.main) Deno.exit(await main(givenArguments()));
