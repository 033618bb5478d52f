// The film of `dino attention --video`: what [CLS], or a patch, looks at in every frame of a video.

import { join } from "node:path";
import type { Raster } from "../../models/image/raster.ts";
import { type AttentionMaps, massMasks, upsampleNearest } from "../../dino/eval/pictures/attention.ts";
import {
  besideEachOther,
  headsFigure,
  heatMap,
  type HeatRange,
  overlayHeat,
  overlayMask,
  rangeOf,
} from "../../dino/eval/pictures/overlays.ts";
import { choice, integer, number, text } from "../../dino/config/field.ts";
import type { Values } from "../evaluation/command.ts";
import { frameName } from "./film.ts";
import { encodePng } from "../report/png.ts";

/** Flags of the film. */
export const filmFields = {
  video: text(
    null,
    "film of what is looked at, frame by frame: a .webp, or with ffmpeg a .mp4, .webm, .mov, .mkv or .avi",
  ),
  fps: number(null, "with --video: frames a second; auto: the video's own, 25 for a folder of frames", {
    above: 0,
    max: 1000,
  }),
  view: choice(
    ["beside", "heat", "overlay", "mask", "heads"],
    "beside",
    "with --video: frame and heat map beside each other, the map alone, laid over the frame, the mask that holds " +
      "--threshold of the mass, or all heads in colours",
  ),
  head: integer(null, "with --video: what this head looks at, counting from 0; auto: the mean over heads", { min: 0 }),
  scale: choice(
    ["film", "frame"],
    "film",
    "with --video: one scale of colours for all frames, or from the smallest to the largest value of each",
  ),
};

/** A film that is to be made. */
export interface FilmPlan {
  /** Folder that its frames are drawn into. */
  readonly folder: string;
  /** Frames a second. */
  readonly rate: number;
}

/**
 * Of all attention in a film, this share is not beyond the brightest colour: single patches that draw much more of it for a
 * moment would leave everything else dark.
 */
const BRIGHTEST_QUANTILE = 0.995;

/** What was looked at in one frame. */
export interface LookedAt {
  /** The frame as the network saw it. */
  readonly image: Raster;
  readonly maps: AttentionMaps;
}

/**
 * Draws the frames of a film, numbered, into the plan's folder.
 *
 * @param look what is looked at in frame i
 * @param imageOf frame i as the network sees it
 * @throws {RangeError} naming a frame of another size, or a head that is not there
 */
export async function drawFilm(
  { view, head, scale, threshold }: Pick<Values<typeof filmFields>, "view" | "head" | "scale"> & { threshold: number },
  { folder }: FilmPlan,
  frames: { readonly length: number; id(i: number): string },
  { look, imageOf, patchSize, progress }: {
    look(i: number): Promise<LookedAt>;
    imageOf(i: number): Promise<Raster>;
    readonly patchSize: number;
    progress(what: string, done: number, total: number): void;
  },
): Promise<void> {
  // All maps first: the colours of the first frame depend on those of the last. A map has one value for a patch.
  const shown: AttentionMaps[] = [];
  let first: Raster | undefined;
  for (let i = 0; i < frames.length; i++) {
    const { image, maps } = await look(i);
    first ??= image;
    if (image.height !== first.height || image.width !== first.width) {
      throw new RangeError(
        `${
          frames.id(i)
        }: becomes ${image.width} × ${image.height}, the frames before ${first.width} × ${first.height}: ` +
          "a film takes frames of one shape",
      );
    }
    if (head !== null && head >= maps.heads) {
      throw new RangeError(`--head ${head}: there are heads 0 to ${maps.heads - 1}`);
    }
    shown.push(view === "heads" ? maps : oneMap(maps, head));
    progress("frames", i + 1, frames.length);
  }
  const ranges = scale === "film" ? rangesOf(shown) : undefined;
  await Deno.mkdir(folder, { recursive: true });
  for (const [i, maps] of shown.entries()) {
    const image = await imageOf(i);
    const picture = drawFrame(image, maps, view, threshold, patchSize, ranges ?? rangesOf([maps], 1));
    await Deno.writeFile(join(folder, frameName(i)), encodePng(picture.data, picture.height, picture.width));
    progress("drawing", i + 1, frames.length);
  }
}

function drawFrame(
  image: Raster,
  maps: AttentionMaps,
  view: Values<typeof filmFields>["view"],
  threshold: number,
  patch: number,
  ranges: readonly HeatRange[],
): Raster {
  const { height, width } = image;
  const enlarge = <T extends Float32Array | Uint8Array>(grid: T) =>
    upsampleNearest(grid, maps.gridHeight, maps.gridWidth, patch);
  const full = enlarge(maps.maps);
  switch (view) {
    case "heat":
      return heatMap(full, height, width, ranges[0]);
    case "overlay":
      return overlayHeat(image, full, ranges[0]);
    case "mask":
      return overlayMask(image, enlarge(massMasks(maps, threshold)));
    case "heads": {
      const peaks = ranges.map(([, brightest]) => brightest);
      return besideEachOther([image, headsFigure(image, full, enlarge(massMasks(maps, threshold)), maps.heads, peaks)]);
    }
    default:
      return besideEachOther([image, heatMap(full, height, width, ranges[0])]);
  }
}

/** One head, or the mean over heads, as if it were the only one. */
function oneMap({ heads, gridHeight, gridWidth, maps }: AttentionMaps, head: number | null): AttentionMaps {
  const patches = gridHeight * gridWidth;
  if (head !== null) {
    return { heads: 1, gridHeight, gridWidth, maps: maps.slice(head * patches, (head + 1) * patches) };
  }
  const mean = new Float32Array(patches);
  maps.forEach((value, i) => mean[i % patches] += value / heads);
  return { heads: 1, gridHeight, gridWidth, maps: mean };
}

/** What each head's colours reach from and to, over all frames. */
function rangesOf(frames: readonly AttentionMaps[], quantile = BRIGHTEST_QUANTILE): HeatRange[] {
  const [{ heads, gridHeight, gridWidth }] = frames;
  const patches = gridHeight * gridWidth;
  return Array.from({ length: heads }, (_, h) => {
    const all = new Float32Array(frames.length * patches);
    frames.forEach(({ maps }, f) => all.set(maps.subarray(h * patches, (h + 1) * patches), f * patches));
    if (quantile === 1) return rangeOf(all);
    all.sort();
    return [all[0], all[Math.min(all.length - 1, Math.floor(quantile * all.length))]];
  });
}
