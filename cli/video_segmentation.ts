// `dino video_segmentation`: carries a first frame's masks through videos and scores them as DAVIS does; runs directly too.

import { basename, join } from "node:path";
import { IMAGENET_NORMALIZATION, type Normalization } from "../models/graph/ops/augment.ts";
import { requireVit } from "../models/backbone.ts";
import { resizeMaskNearest } from "../models/image/host_resize.ts";
import type { PixelSource } from "../dino/data/dataset.ts";
import { measureFrame, type SequenceMeasure, summarizeSequence } from "../dino/eval/video/davis.ts";
import { ImageEncoder } from "../dino/eval/encoder.ts";
import { normalizedPlanes, readRaster } from "../dino/eval/image_planes.ts";
import { labelsOfMask, OBJECT_PALETTE } from "../dino/eval/pictures/object_masks.ts";
import { resizeFrame } from "../dino/eval/resize_bilinear.ts";
import { labelPixels, MaskPropagation, upsampleMask } from "../dino/eval/video/video_segmentation.ts";
import { boolean, integer, number, text } from "../dino/config/field.ts";
import { runEvaluation } from "./evaluation/run.ts";
import type { EvaluationCommand, EvaluationContext, Values } from "./evaluation/command.ts";
import { givenArguments } from "./processes/mode.ts";
import { refuseUsedFolder, writeFolder } from "./evaluation/output_folder.ts";
import { encodePalettePng } from "./report/png.ts";
import { framesOf, imagesIn } from "./video/video_frames.ts";

const fields = {
  data: text(null, "DAVIS 2017: the folder with JPEGImages, Annotations and ImageSets", { aliases: ["data-path"] }),
  split: text("val", "the list of sequences in ImageSets/2017"),
  resolution: text("480p", "the folder inside JPEGImages and Annotations"),
  frames: text(
    null,
    "instead of --data: one video, as a folder of frames in the order of their names, or a file (ffmpeg)",
  ),
  mask: text(null, "with --frames: the first frame's mask, a palette or grey PNG"),
  out: text(null, "folder for the masks, one palette PNG a frame", { aliases: ["output-dir"] }),
  imsize: integer(480, "shorter side of a frame while it is computed", { min: 1, unit: "pixels" }),
  nLastFrames: integer(7, "frames looked back at, besides the first", { min: 0 }),
  sizeMaskNeighborhood: integer(12, "patches in each direction that are looked at; 0: all of them", { min: 0 }),
  topk: integer(5, "patches that vote", { min: 1 }),
  temperature: number(0.1, "of the vote", { above: 0 }),
  referenceStd: boolean(true, "divide red by 0.228 as the reference does in this one evaluation, not by 0.229"),
};
type Flags = Values<typeof fields>;

/** Frames and masks of one video, as places in the lists of files. */
interface Sequence {
  readonly name: string;
  readonly frames: readonly number[];
  /** Of each frame; undefined where there is no annotation. */
  readonly masks: readonly (number | undefined)[];
}

interface Found {
  readonly sequences: readonly Sequence[];
  readonly frames: readonly string[];
  readonly masks: readonly string[];
}

/** The other side of a frame is cut to a multiple of this. */
const SIDE_STEP = 64;

/** The command. */
export const command: EvaluationCommand<typeof fields> = {
  name: "video_segmentation",
  usage: "video_segmentation RUN|WEIGHTS --data DAVIS --out DIR [flags]",
  about: "Segments the objects of a video from the mask of its first frame, without training, by the similarity of " +
    "patches. Where there are masks of all frames: region and boundary measures.",
  after: ["One video: video_segmentation WEIGHTS --frames FOLDER --mask FIRST.png --out DIR"],
  fields,
  sources: (_, extra) => {
    const { frames, masks } = extra as Found;
    return {
      frames: { path: "frames", files: frames, strict: true },
      masks: { path: "masks", files: masks, strict: true },
    };
  },
  prepare: async (flags, temporary, signal): Promise<Found> => {
    if (flags.out === null) throw new RangeError("wants a folder for the masks in --out");
    await refuseUsedFolder(flags.out);
    if (flags.frames !== null) {
      return await singleVideo(await framesOf(flags.frames, temporary, signal), flags.mask, basename(flags.frames));
    }
    if (flags.data === null) throw new RangeError("wants DAVIS in --data, or the frames of one video in --frames");
    return await davisVideos(flags.data, flags.split, flags.resolution);
  },
  async evaluate(context, flags) {
    const { sequences } = context.extra as Found;
    requireVit(context.backbone, "patches to carry masks by");
    const encoder = new ImageEncoder(context.backend, context.parameters, context.backbone);
    const scores = await writeFolder(flags.out!, async (folder) => {
      const all: ObjectScore[] = [];
      for (const sequence of sequences) all.push(...await segment(context, flags, encoder, sequence, folder));
      return all;
    });
    encoder.dispose();
    const frames = sequences.reduce((sum, s) => sum + s.frames.length, 0);
    const lines = [`${flags.out}: masks of ${frames} frames of ${sequences.length} videos`];
    if (scores.length === 0) return { value: { out: flags.out, videos: sequences.length, frames }, lines };
    const mean = (pick: (s: ObjectScore) => number) => scores.reduce((sum, s) => sum + pick(s), 0) / scores.length;
    const J = mean((s) => s.J.mean), F = mean((s) => s.F.mean);
    const total = {
      "J&F": (J + F) / 2,
      J,
      F,
      J_recall: mean((s) => s.J.recall),
      J_decay: mean((s) => s.J.decay),
      F_recall: mean((s) => s.F.recall),
      F_decay: mean((s) => s.F.decay),
    };
    const percent = (v: number) => (100 * v).toFixed(1);
    return {
      value: { out: flags.out, videos: sequences.length, frames, objects: scores.length, ...total, scores },
      lines: [
        ...lines,
        ...scores.map((s) => `  ${s.video} object ${s.object}: J ${percent(s.J.mean)}  F ${percent(s.F.mean)}`),
        `${scores.length} objects: J&F ${percent(total["J&F"])}  J ${percent(J)}  F ${percent(F)}`,
      ],
    };
  },
};

interface ObjectScore {
  readonly video: string;
  readonly object: number;
  readonly J: SequenceMeasure;
  readonly F: SequenceMeasure;
}

async function segment(
  { backend, backbone, normalization, sources, progress }: EvaluationContext,
  flags: Flags,
  encoder: ImageEncoder,
  sequence: Sequence,
  folder: string,
): Promise<ObjectScore[]> {
  requireVit(backbone, "patches to carry masks by");
  const { patchSize: patch, embedDim: dim } = backbone;
  const first = await readRaster(sources.frames, sequence.frames[0]);
  const { height, width } = first;
  const size = frameSize(height, width, flags.imsize);
  const gridHeight = Math.floor(size.height / patch), gridWidth = Math.floor(size.width / patch);
  if (gridHeight < 1 || gridWidth < 1) {
    throw new RangeError(`${sequence.name}: frames of ${width} × ${height} are too small: raise --imsize`);
  }
  const mask = await readMask(sources.masks, sequence.masks[0]!, height, width);
  const classes = 1 + mask.reduce((a, b) => Math.max(a, b), 0);
  const colours = colourNormalization(normalization, flags.referenceStd);
  const features = async (index: number) => {
    const frame = await readRaster(sources.frames, index);
    if (frame.height !== height || frame.width !== width) {
      throw new RangeError(
        `${sources.frames.id(index)}: is ${frame.width} × ${frame.height}, the first frame ${width} × ${height}`,
      );
    }
    const planes = normalizedPlanes(resizeFrame(frame, size.height, size.width), colours);
    const { tokens } = await encoder.encode(planes, 1, size.height, size.width, { tokens: true });
    return tokens!.subarray(dim); // without [CLS]
  };
  const small = resizeMaskNearest(mask, height, width, gridHeight, gridWidth);
  const patches = gridHeight * gridWidth;
  const shares = new Float32Array(classes * patches);
  small.forEach((label, i) => shares[label * patches + i] = 1);
  const propagation = await MaskPropagation.create(backend, {
    gridHeight,
    gridWidth,
    dim,
    classes,
    lastFrames: flags.nLastFrames,
    radius: flags.sizeMaskNeighborhood,
    k: flags.topk,
    temperature: flags.temperature,
  });
  const measures = Array.from({ length: classes - 1 }, () => ({ J: [] as number[], F: [] as number[] }));
  const write = async (t: number, labels: Uint8Array) => {
    const name = basename(sources.frames.id(sequence.frames[t])).replace(/\.[^.]*$/, ".png");
    await Deno.writeFile(join(folder, sequence.name, name), encodePalettePng(labels, height, width, OBJECT_PALETTE));
  };
  await Deno.mkdir(join(folder, sequence.name), { recursive: true });
  try {
    propagation.start(await features(sequence.frames[0]), shares);
    await write(0, mask);
    for (let t = 1; t < sequence.frames.length; t++) {
      const soft = await propagation.next(await features(sequence.frames[t]));
      const labels = labelPixels(upsampleMask(soft, classes, gridHeight, gridWidth, patch), classes);
      const full = resizeMaskNearest(labels, gridHeight * patch, gridWidth * patch, height, width);
      await write(t, full);
      progress(`${sequence.name}, frame`, t + 1, sequence.frames.length);
      const annotated = sequence.masks[t];
      // The first frame is given and the last one is left out: DAVIS's rule.
      if (annotated === undefined || t === sequence.frames.length - 1) continue;
      const truth = await readMask(sources.masks, annotated, height, width);
      measures.forEach(({ J, F }, object) => {
        const measured = measureFrame(of(full, object + 1), of(truth, object + 1), height, width);
        J.push(measured.J);
        F.push(measured.F);
      });
    }
  } finally {
    propagation.dispose();
  }
  return measures.flatMap(({ J, F }, i) =>
    J.length === 0 ? [] : [{ video: sequence.name, object: i + 1, J: summarizeSequence(J), F: summarizeSequence(F) }]
  );
}

const of = (labels: Uint8Array, label: number) => labels.map((each) => each === label ? 1 : 0);

async function readMask(source: PixelSource, index: number, height: number, width: number): Promise<Uint8Array> {
  const mask = await readRaster(source, index);
  if (mask.height !== height || mask.width !== width) {
    throw new RangeError(
      `${source.id(index)}: this mask is ${mask.width} × ${mask.height}, its frame ${width} × ${height}`,
    );
  }
  return labelsOfMask(mask, source.id(index));
}

/** The shorter side becomes `side`, the longer one is cut to a multiple of 64. */
function frameSize(height: number, width: number, side: number): { height: number; width: number } {
  const longer = (ratio: number) => Math.max(SIDE_STEP, Math.floor(Math.floor(side * ratio) / SIDE_STEP) * SIDE_STEP);
  return height > width
    ? { height: longer(height / width), width: side }
    : { height: side, width: longer(width / height) };
}

function colourNormalization(normalization: Normalization, reference: boolean): Normalization {
  const imagenet = IMAGENET_NORMALIZATION.deviation;
  if (!reference || normalization.deviation.some((d, i) => d !== imagenet[i])) return normalization;
  return { mean: normalization.mean, deviation: [0.228, imagenet[1], imagenet[2]] };
}

async function singleVideo(frames: string, mask: string | null, name: string): Promise<Found> {
  if (mask === null) throw new RangeError("--frames wants the first frame's mask in --mask");
  const files = await imagesIn(frames);
  if (!await Deno.stat(mask).then(({ isFile }) => isFile, () => false)) throw new RangeError(`${mask}: no such mask`);
  const places = files.map((_, i) => i);
  return {
    frames: files,
    masks: [mask],
    sequences: [{ name: name.replace(/\.[^.]*$/, ""), frames: places, masks: places.map((i) => i ? undefined : 0) }],
  };
}

async function davisVideos(data: string, split: string, resolution: string): Promise<Found> {
  const list = join(data, "ImageSets", "2017", `${split}.txt`);
  const text = await Deno.readTextFile(list).catch((error) => {
    throw error instanceof Deno.errors.NotFound ? new RangeError(`${list}: no such list of sequences`) : error;
  });
  const frames: string[] = [], masks: string[] = [], sequences: Sequence[] = [];
  for (const name of text.split(/\r?\n/).map((line) => line.trim()).filter((line) => line !== "")) {
    const images = await imagesIn(join(data, "JPEGImages", resolution, name));
    const annotations = await imagesIn(join(data, "Annotations", resolution, name));
    const stem = (path: string) => basename(path).replace(/\.[^.]*$/, "");
    const byStem = new Map(annotations.map((path, i) => [stem(path), masks.length + i]));
    const of = images.map((path) => byStem.get(stem(path)));
    if (of[0] === undefined) {
      throw new RangeError(`${images[0]}: the first frame has no mask among ${name}'s annotations`);
    }
    sequences.push({ name, frames: images.map((_, i) => frames.length + i), masks: of });
    frames.push(...images);
    masks.push(...annotations);
  }
  if (sequences.length === 0) throw new RangeError(`${list}: names no sequence`);
  return { frames, masks, sequences };
}

/** Runs the command; returns its exit status. */
export const main = (words: readonly string[]): Promise<number> => runEvaluation(command, words);

if (import.meta.main) Deno.exit(await main(givenArguments()));
