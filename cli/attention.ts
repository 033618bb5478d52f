// `dino attention`: draws what [CLS], or a patch, looks at, and scores it against given masks; runs directly too.

import { basename, join } from "node:path";
import { headConfig } from "../models/dino_head.ts";
import { tensor } from "../models/graph/tensor.ts";
import { initialBuffer, initialParameters } from "../models/init.ts";
import { backboneBufferShapes, backboneShapes, isXcitConfig, requireTokens } from "../models/backbone.ts";
import type { VitConfig } from "../models/vit.ts";
import type { XcitConfig } from "../models/xcit.ts";
import { resizeMaskNearest } from "../models/image/host_resize.ts";
import type { Raster } from "../models/image/raster.ts";
import { resize } from "../models/image/resample.ts";
import { readTrainingState } from "../dino/run/checkpoint.ts";
import { defaultConfig } from "../dino/config.ts";
import type { PixelSource } from "../dino/data/dataset.ts";
import {
  type AttentionMaps,
  attentionMaps,
  jaccard,
  massMasks,
  scoreForeground,
  upsampleNearest,
} from "../dino/eval/pictures/attention.ts";
import { ImageEncoder } from "../dino/eval/encoder.ts";
import { cropToPatches, fitShorterSide, normalizedPlanes, readRaster } from "../dino/eval/image_planes.ts";
import { labelsOfMask } from "../dino/eval/pictures/object_masks.ts";
import { besideEachOther, headColour, headsFigure, heatMap, overlayMask } from "../dino/eval/pictures/overlays.ts";
import { boolean, integer, number, text } from "../dino/config/field.ts";
import { drawFilm, filmFields, type FilmPlan } from "./video/attention_film.ts";
import { runEvaluation } from "./evaluation/run.ts";
import type { EvaluationCommand, EvaluationContext, Values } from "./evaluation/command.ts";
import { givenArguments } from "./processes/mode.ts";
import { refuseUnwritableFilm, writeFilm } from "./video/film.ts";
import { refuseUsedFolder, writeFolder } from "./evaluation/output_folder.ts";
import { encodePng } from "./report/png.ts";
import { pictureNames } from "./evaluation/picture_names.ts";
import { framesOf, imagesIn, rateOf } from "./video/video_frames.ts";

const fields = {
  data: text(null, "an image, a folder of images or of a video's frames, or a video (ffmpeg)", {
    aliases: ["image-path", "input-path"],
  }),
  out: text(null, "folder for the pictures", { aliases: ["output-dir", "output-path"] }),
  imageSize: integer(480, "side of the square an image is resized to; with --keep-aspect or --video its shorter side", {
    min: 1,
    unit: "pixels",
  }),
  keepAspect: boolean(false, "do not distort to a square"),
  threshold: number(0.6, "share of a head's attention that its mask keeps", { above: 0, max: 1 }),
  query: text("cls", "who looks: cls, or a place x,y in shares of width and height, such as 0.5,0.3"),
  meanOnly: boolean(false, "only the mean over heads, one picture an image"),
  ...filmFields,
  masks: text(null, "folder of foreground masks with the images' names: scores the heads against them"),
  randomBaseline: boolean(false, "with --masks: the scores of random weights too; of a run, those it began with"),
  limit: integer(null, "use the first N images only", { min: 1, unit: "images" }),
};
type Flags = Values<typeof fields>;

/** What is looked at. */
interface Found {
  /** Of the images; of a video its frames. */
  readonly path: string;
  /** The frames of a film, in their order. */
  readonly files?: readonly string[];
  readonly film?: FilmPlan;
}

/** Of a folder of frames, which does not say: what most cameras take. */
const USUAL_RATE = 25;

/** The command. */
export const command: EvaluationCommand<typeof fields> = {
  name: "attention",
  usage: "attention RUN|WEIGHTS --data IMAGE|DIR|VIDEO --out DIR [--video FILE] [flags]",
  about: "Draws the attention of the last block's heads: a heat map and a mask of each head, and all heads in one " +
    "picture. With --video: a film of it. With --masks: how well they cover given foregrounds (Jaccard).",
  fields,
  sources: ({ masks, limit }, extra) => {
    const { path, files, film } = extra as Found;
    // A picture less does no harm; a score or a film would be another one.
    const strict = masks !== null || film !== undefined;
    return {
      data: { path, files, limit: limit ?? undefined, strict, original: true },
      ...masks === null ? {} : { masks: { path: masks, strict: true } },
    };
  },
  prepare: async (flags, temporary, signal): Promise<Found> => {
    const { data, out, query, masks, meanOnly, randomBaseline, video } = flags;
    placeOf(query);
    if (data === null) throw new RangeError("wants an image or a folder of images in --data");
    if (randomBaseline && masks === null) throw new RangeError("--random-baseline goes with --masks");
    if (out === null && masks === null && video === null) {
      throw new RangeError("wants a folder for the pictures in --out, or a film in --video");
    }
    if (video === null) {
      const alone = (["fps", "view", "head", "scale"] as const).find((key) => flags[key] !== fields[key].default);
      if (alone) throw new RangeError(`--${alone} goes with --video: name the film`);
    } else await refuseUnwritableFilm("--video", video);
    if (out !== null) await refuseUsedFolder(out);
    if (meanOnly && masks !== null) throw new RangeError("--mean-only draws, --masks scores heads: use one of the two");
    const path = await framesOf(data, temporary, signal);
    if (video === null) return { path };
    const rate = flags.fps ?? await rateOf(data) ?? USUAL_RATE;
    const isFolder = await Deno.stat(path).then(({ isDirectory }) => isDirectory, () => false);
    const files = isFolder ? await imagesIn(path) : undefined;
    return { path, files, film: { folder: join(temporary, "film"), rate } };
  },
  finish: async ({ video }, extra, { signal, progress }) => {
    const { film } = extra as Found;
    if (!film) return;
    const count = [...Deno.readDirSync(film.folder)].length;
    const show = (done: number, total: number) => progress("film, frame", done, total);
    await writeFilm(video!, film.folder, count, { rate: film.rate, signal, progress: show });
  },
  async evaluate(context, flags) {
    const { sources: { data, masks }, backbone } = context;
    requireTokens(backbone, "attention maps");
    if (isXcitConfig(backbone) && placeOf(flags.query)) {
      throw new RangeError(`--query ${flags.query}: in an XCiT [CLS] alone attends to patches: leave it out`);
    }
    if (flags.imageSize < backbone.patchSize) {
      throw new RangeError(`--image-size ${flags.imageSize}: is smaller than a patch of ${backbone.patchSize}`);
    }
    const looking = { ...context, backbone };
    const encoder = new ImageEncoder(context.backend, context.parameters, backbone);
    const truths = masks && placesByName(masks);
    const missing = truths &&
      Array.from({ length: data.length }, (_, i) => data.id(i)).find((id) => !truths.has(stem(id)));
    if (missing !== undefined) throw new RangeError(`${flags.masks}: has no mask called like ${missing}`);
    const names = pictureNames(Array.from({ length: data.length }, (_, i) => data.id(i)));
    const scores: ImageScore[] = [];
    const all = async (folder?: string) => {
      for (let i = 0; i < data.length; i++) {
        const looked = await look(looking, flags, encoder, data, i);
        if (folder !== undefined) await draw(folder, flags, names[i], looked, backbone.patchSize);
        if (truths) scores.push(await score(flags, data.id(i), looked, masks, truths.get(stem(data.id(i)))!));
        context.progress("images", i + 1, data.length);
      }
    };
    if (flags.out !== null) await writeFolder(flags.out, all);
    else if (truths) await all();
    const { film } = context.extra as Found;
    if (film) {
      const imageOf = async (i: number) => seenImage(await readRaster(data, i), flags, backbone.patchSize);
      const { patchSize } = backbone, { progress } = context;
      await drawFilm(flags, film, data, {
        look: (i) => look(looking, flags, encoder, data, i),
        imageOf,
        patchSize,
        progress,
      });
    }
    encoder.dispose();
    const baseline = flags.randomBaseline ? await scoreRandom(looking, flags, truths!) : undefined;
    const lines = [
      ...flags.out === null ? [] : [`${flags.out}: pictures of ${data.length} images`],
      ...film ? [`${flags.video}: ${data.length} frames, ${Number(film.rate.toFixed(3))} a second`] : [],
    ];
    const written = { out: flags.out, images: data.length, ...film && { video: flags.video, fps: film.rate } };
    if (scores.length === 0) return { value: written, lines };
    const summary = summarize(scores, backbone.numHeads);
    const percent = (v: number) => (100 * v).toFixed(1);
    return {
      value: { ...written, threshold: flags.threshold, ...summary, baseline, scores },
      lines: [
        ...lines,
        `Jaccard with ${scores.length} masks, ${flags.threshold * 100} % of the attention kept:`,
        `  best head of each image ${percent(summary.bestPerImage)}   best single head ${percent(summary.bestHead)} ` +
        `(head ${summary.head})   mean over heads ${percent(summary.meanOverHeads)}   ` +
        `mean attention ${percent(summary.meanAttention)}`,
        ...baseline
          ? [
            `  with random weights     ${percent(baseline.bestPerImage)}   best single head ${
              percent(baseline.bestHead)
            }   mean over heads ${percent(baseline.meanOverHeads)}`,
          ]
          : [],
      ],
    };
  },
};

type LookingContext = EvaluationContext & { readonly backbone: VitConfig | XcitConfig };

interface Looked {
  /** The image as the network saw it. */
  readonly image: Raster;
  /** As it is in its file. */
  readonly original: Raster;
  readonly maps: AttentionMaps;
}

async function look(
  { normalization, backbone }: LookingContext,
  flags: Flags,
  encoder: ImageEncoder,
  source: PixelSource,
  i: number,
): Promise<Looked> {
  const original = await readRaster(source, i);
  const image = seenImage(original, flags, backbone.patchSize);
  const { height, width } = image;
  const gridHeight = height / backbone.patchSize, gridWidth = width / backbone.patchSize;
  const place = placeOf(flags.query);
  const token = place
    ? 1 + Math.min(gridHeight - 1, Math.floor(place[1] * gridHeight)) * gridWidth +
      Math.min(gridWidth - 1, Math.floor(place[0] * gridWidth))
    : 0;
  const { attention } = await encoder.encode(normalizedPlanes(image, normalization), 1, height, width, {
    attentionOf: token,
  });
  return { image, original, maps: attentionMaps(attention!, backbone.numHeads, gridHeight, gridWidth) };
}

/** An image as the network sees it. */
function seenImage(original: Raster, { imageSize: side, keepAspect, video }: Flags, patchSize: number): Raster {
  if (keepAspect || video !== null) return fitShorterSide(original, side, patchSize);
  return cropToPatches(resize(original, side, side, "bilinear"), patchSize);
}

async function draw(folder: string, flags: Flags, name: string, { image, maps }: Looked, patch: number): Promise<void> {
  const { height, width } = image;
  const { heads, gridHeight, gridWidth } = maps;
  const save = (path: string, picture: Raster) =>
    Deno.writeFile(join(folder, path), encodePng(picture.data, picture.height, picture.width));
  const full = upsampleNearest(maps.maps, gridHeight, gridWidth, patch);
  const pixels = height * width;
  const mean = new Float32Array(pixels);
  full.forEach((value, i) => mean[i % pixels] += value / heads);
  if (flags.meanOnly) return await save(`${name}.png`, heatMap(mean, height, width));
  const masks = upsampleNearest(massMasks(maps, flags.threshold), gridHeight, gridWidth, patch);
  await Deno.mkdir(join(folder, name));
  await save(join(name, "img.png"), image);
  await save(join(name, "attn-mean.png"), heatMap(mean, height, width));
  for (let h = 0; h < heads; h++) {
    const heat = heatMap(full.subarray(h * pixels, (h + 1) * pixels), height, width);
    await save(join(name, `attn-head${h}.png`), heat);
    const mask = masks.subarray(h * pixels, (h + 1) * pixels);
    await save(join(name, `mask_th${flags.threshold}_head${h}.png`), overlayMask(image, mask, headColour(h)));
  }
  await save(join(name, "heads.png"), besideEachOther([image, headsFigure(image, full, masks, heads)]));
}

/** The same scores of the network before any training: for a run the very weights it began with. */
async function scoreRandom(
  context: LookingContext,
  flags: Flags,
  truths: ReadonlyMap<string, number>,
): Promise<ReturnType<typeof summarize>> {
  const { backend, backbone, sources: { data, masks } } = context;
  const head = headConfig({ inDim: backbone.embedDim, outDim: 2 });
  const run = await readTrainingState(context.weightsPath).catch(() => undefined);
  const { seed, initStd } = run?.config ?? defaultConfig();
  const drawn = initialParameters({ backbone, head }, seed, initStd);
  const parameters = new Map(
    [...backboneShapes(backbone), ...backboneBufferShapes(backbone)].map(([name, shape]) => {
      const t = tensor(name, shape, "param");
      const buffer = () => new Float32Array(shape[0]).fill(initialBuffer(name));
      backend.write(t, drawn.get(`backbone.${name}`) ?? buffer());
      return [name, t];
    }),
  );
  const encoder = new ImageEncoder(backend, (name) => parameters.get(name)!, backbone);
  const scores: ImageScore[] = [];
  for (let i = 0; i < data.length; i++) {
    const looked = await look(context, flags, encoder, data, i);
    scores.push(await score(flags, data.id(i), looked, masks, truths.get(stem(data.id(i)))!));
    context.progress("images with random weights", i + 1, data.length);
  }
  encoder.dispose();
  backend.free(...parameters.values());
  return summarize(scores, backbone.numHeads);
}

interface ImageScore {
  readonly image: string;
  readonly heads: readonly number[];
  /** Of the mask made from the mean over heads. */
  readonly meanAttention: number;
}

async function score(
  flags: Flags,
  id: string,
  { maps, original }: Looked,
  masks: PixelSource,
  index: number,
): Promise<ImageScore> {
  const truth = await readRaster(masks, index);
  if (truth.height !== original.height || truth.width !== original.width) {
    const sizes = `${truth.width} × ${truth.height}, its image ${original.width} × ${original.height}`;
    throw new RangeError(`${masks.id(index)}: this mask is ${sizes}`);
  }
  const labels = labelsOfMask(truth, masks.id(index)).map((label) => label ? 1 : 0);
  const { gridHeight, gridWidth, heads } = maps;
  const pixels = labels.length;
  // Masks of patches are enlarged to the given mask, so that what is scored is pixels of the original image.
  const enlarge = (grid: Uint8Array) => resizeMaskNearest(grid, gridHeight, gridWidth, truth.height, truth.width);
  const kept = massMasks(maps, flags.threshold);
  const patches = gridHeight * gridWidth;
  const full = new Uint8Array(heads * pixels);
  for (let h = 0; h < heads; h++) full.set(enlarge(kept.subarray(h * patches, (h + 1) * patches)), h * pixels);
  const mean = new Float32Array(patches);
  maps.maps.forEach((value, i) => mean[i % patches] += value / heads);
  const ofMean = massMasks({ heads: 1, gridHeight, gridWidth, maps: mean }, flags.threshold);
  return { image: id, heads: scoreForeground(full, labels).heads, meanAttention: jaccard(enlarge(ofMean), labels) };
}

function summarize(scores: readonly ImageScore[], heads: number) {
  const mean = (pick: (s: ImageScore) => number) => scores.reduce((sum, s) => sum + pick(s), 0) / scores.length;
  const perHead = Array.from({ length: heads }, (_, h) => mean((s) => s.heads[h]));
  const bestHead = Math.max(...perHead);
  return {
    /** The head that fits best is chosen for every image: what the paper's figure reports. */
    bestPerImage: mean((s) => Math.max(...s.heads)),
    bestHead,
    head: perHead.indexOf(bestHead),
    meanOverHeads: perHead.reduce((a, b) => a + b, 0) / heads,
    meanAttention: mean((s) => s.meanAttention),
    perHead,
  };
}

/** Shares of width and height, or undefined for [CLS]. */
function placeOf(query: string): [x: number, y: number] | undefined {
  if (query === "cls") return undefined;
  const parts = query.split(",").map(Number);
  if (parts.length !== 2 || parts.some((v) => !(v >= 0 && v <= 1))) {
    throw new RangeError(`--query ${query}: wants cls, or x,y in shares of width and height, such as 0.5,0.3`);
  }
  return [parts[0], parts[1]];
}

const stem = (id: string) => basename(id).replace(/\.[^.]*$/, "");

function placesByName(source: PixelSource): Map<string, number> {
  return new Map(Array.from({ length: source.length }, (_, i) => [stem(source.id(i)), i]));
}

/** Runs the command; returns its exit status. */
export const main = (words: readonly string[]): Promise<number> => runEvaluation(command, words);

if (import.meta.main) Deno.exit(await main(givenArguments()));
