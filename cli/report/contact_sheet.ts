// A picture of augmented crops: a few images, a row each, as training will see them.

import type { Backend } from "../../models/graph/backend.ts";
import { augmentToLevels, pixelBuffer, pixelRoom } from "../../models/graph/ops/augment.ts";
import { Program } from "../../models/graph/program.ts";
import { type CropParameters, CropPlanner, plainCrop } from "../../models/image/crop.ts";
import { pixelExtremes } from "../../dino/crop_feed.ts";
import type { PixelSource } from "../../dino/data/dataset.ts";
import { cropCapacity, CropSampler, GLOBAL_VIEWS } from "../../dino/data/multicrop.ts";
import type { FittedConfig } from "../../dino/config.ts";
import { encodePng } from "./png.ts";

/** Images shown; fewer of large ones, for the page carries them. */
const rowsFor = (cropSize: number) => cropSize > 128 ? 4 : 8;
/** Views shown of an image: ten locals say no more than six. */
const MOST_VIEWS = 8;
const GAP = 4;

/** A PNG of the crops of the first epoch, and what it shows. */
export interface ContactSheet {
  readonly png: Uint8Array<ArrayBuffer>;
  readonly caption: string;
}

/** Draws the views of a few images, spread over the data, on the device. */
export async function contactSheet(config: FittedConfig, data: PixelSource, backend: Backend): Promise<ContactSheet> {
  const rows = Math.min(rowsFor(config.globalCropSize), data.length);
  const indices = Array.from({ length: rows }, (_, r) => Math.floor(r * data.length / rows));
  const batch = await data.readBatch(indices);
  const sampler = new CropSampler(config, config.seed);
  const views = Math.min(sampler.views, MOST_VIEWS);
  const { globalCropSize, localCropSize } = config;
  const width = GLOBAL_VIEWS * (globalCropSize + GAP) + (views - GLOBAL_VIEWS) * (localCropSize + GAP) - GAP;
  const height = rows * (globalCropSize + GAP) - GAP;
  const sheet = new Uint8Array(height * width * 3).fill(128); // grey shows on light and dark pages

  const { longestSide } = pixelExtremes(data);
  const groups = [
    { size: globalCropSize, first: 0, count: GLOBAL_VIEWS, left: 0 },
    {
      size: localCropSize,
      first: GLOBAL_VIEWS,
      count: views - GLOBAL_VIEWS,
      left: GLOBAL_VIEWS * (globalCropSize + GAP),
    },
  ].filter(({ count }) => count > 0);
  for (const { size, first, count, left } of groups) {
    const crops: CropParameters[] = [];
    for (const [row, index] of indices.entries()) {
      for (let view = first; view < first + count; view++) {
        const crop = plainCrop(row, { top: 0, left: 0, height: 1, width: 1 });
        sampler.draw(crop, 0, index, view, batch.table[3 * row + 1], batch.table[3 * row + 2]);
        crops.push(crop);
      }
    }
    const levels = await cropsOnDevice(backend, batch, crops, size, longestSide);
    for (let i = 0; i < crops.length; i++) {
      const row = Math.floor(i / count), column = i % count;
      paste(sheet, width, levels.subarray(i * size * size * 3), size, {
        top: row * (globalCropSize + GAP) + ((globalCropSize - size) >> 1),
        left: left + column * (size + GAP),
      });
    }
  }
  const caption = `${rows} images, a row each: two global crops of ${globalCropSize} pixels` +
    (views > GLOBAL_VIEWS ? `, then local crops of ${localCropSize}` : "") + ", as drawn in the first epoch.";
  return { png: encodePng(sheet, height, width), caption };
}

async function cropsOnDevice(
  backend: Backend,
  batch: { pixels: Uint8Array<ArrayBuffer>; table: Int32Array<ArrayBuffer> },
  crops: CropParameters[],
  size: number,
  longestSide: number,
): Promise<Float32Array> {
  const program = new Program("contact sheet");
  const pixels = pixelBuffer(batch.pixels.length);
  const planner = new CropPlanner(cropCapacity(size, crops.length, longestSide));
  const made = augmentToLevels(program, pixels, planner.capacity);
  const executable = await backend.compile(program);
  const words = planner.plan(batch.table, pixelRoom(pixels), crops);
  backend.write(pixels, batch.pixels);
  backend.write(made.table, planner.table);
  backend.write(made.taps, planner.taps.subarray(0, words));
  await executable.run();
  const levels = await backend.read(made.crops) as Float32Array;
  executable.dispose();
  backend.free(pixels, made.table, made.taps, made.levels, made.crops);
  return levels;
}

function paste(
  sheet: Uint8Array,
  width: number,
  levels: Float32Array,
  size: number,
  at: { top: number; left: number },
): void {
  for (let y = 0; y < size; y++) {
    const target = ((at.top + y) * width + at.left) * 3;
    for (let x = 0; x < size * 3; x++) sheet[target + x] = levels[y * size * 3 + x];
  }
}
