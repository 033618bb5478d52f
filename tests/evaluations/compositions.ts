// Semi-synthetic photographs: cut-outs with alpha over photographs, so that every pixel's object is known exactly.

import { basename, join } from "node:path";
import { encodePalettePng } from "../../cli/report/png.ts";
import { loadSharp } from "../../dino/data/sharp.ts";
import { OBJECT_PALETTE } from "../../dino/eval/pictures/object_masks.ts";
import { CounterRandom, STREAM } from "../../models/rng.ts";

/** A photographed thing without its surroundings. */
export interface CutOut {
  readonly name: string;
  readonly file: string;
}

/** RGB pixels, 8 bits. */
export interface Photo {
  readonly height: number;
  readonly width: number;
  readonly data: Uint8Array;
}

/** RGBA pixels, 8 bits. */
type Sprite = Photo;

/** Below this the stamps are drawn, lettered or thumbnails. */
const SMALLEST_SIDE = 160;
const PHOTOGRAPHED = /\/stamps\/(animals|plants|vehicles|food\/fruit)\//;
/** In those folders, but drawn or without a shape of its own. */
const DRAWN = /cartoon|hedgehog|clipart/;

/** Cut-outs of photographs among Debian's tuxpaint-stamps-default, in the order of their paths. */
export async function cutOuts(folder: string): Promise<CutOut[]> {
  const sharp = await loadSharp();
  const found: CutOut[] = [];
  for (const file of await filesBelow(folder, /\.png$/i)) {
    if (!PHOTOGRAPHED.test(file) || DRAWN.test(file)) continue;
    const { width, height, hasAlpha } = await sharp(await Deno.readFile(file)).metadata();
    if (!hasAlpha || Math.min(width, height) < SMALLEST_SIDE) continue;
    const { data } = await sprite(file, 64, false);
    const share = data.filter((value, i) => i % 4 === 3 && value > 127).length / (data.length / 4);
    if (share > 0.2 && share < 0.9) found.push({ name: basename(file, ".png"), file });
  }
  return found;
}

/** Photographs of a folder whose shorter side has at least `side` pixels, in the order of their paths. */
export async function photographs(folder: string, side: number, extension = "jpe?g"): Promise<string[]> {
  const sharp = await loadSharp();
  const found: string[] = [];
  for (const file of await filesBelow(folder, new RegExp(`\\.${extension}$`, "i"))) {
    const size = await sharp(await Deno.readFile(file)).metadata().catch(() => undefined);
    if (size && Math.min(size.width, size.height) >= side) found.push(file);
  }
  return found;
}

/** Every `period`-th is for testing, the others for training. */
export function heldOut<T>(all: readonly T[], period = 4): { train: T[]; test: T[] } {
  return {
    train: all.filter((_, i) => i % period !== period - 1),
    test: all.filter((_, i) => i % period === period - 1),
  };
}

/** Reads a photograph with its shorter side `side` pixels long. */
export async function readPhoto(file: string, side: number): Promise<Photo> {
  const sharp = await loadSharp();
  const { data, info } = await sharp(await Deno.readFile(file)).autoOrient().resize({
    width: side,
    height: side,
    fit: "outside",
  })
    .removeAlpha().toColourspace("srgb").raw().toBuffer({ resolveWithObject: true });
  return { height: info.height, width: info.width, data };
}

/** Draws one picture a cut-out and a ground at random, with its mask; `images/NNNN_thing.jpg` and `masks/NNNN_thing.png`. */
export async function writeStills(
  folder: string,
  { things, grounds, count, side, seed }: {
    readonly things: readonly CutOut[];
    readonly grounds: readonly Photo[];
    readonly count: number;
    readonly side: number;
    readonly seed: number;
  },
): Promise<void> {
  await Deno.mkdir(join(folder, "images"), { recursive: true });
  await Deno.mkdir(join(folder, "masks"), { recursive: true });
  for (let i = 0; i < count; i++) {
    const random = new CounterRandom(seed, STREAM.evaluation, i);
    const thing = things[random.integer(things.length)], ground = grounds[random.integer(grounds.length)];
    const canvas = windowOf(ground, random, side, side);
    const mask = new Uint8Array(side * side);
    const over = await sprite(thing.file, Math.round(side * (0.5 + 0.35 * random.float())), random.float() < 0.5);
    const top = Math.round((side - over.height) * random.float()),
      left = Math.round((side - over.width) * random.float());
    blend(canvas, mask, over, top, left, 1);
    const name = `${String(i).padStart(4, "0")}_${thing.name}`;
    await writeJpeg(join(folder, "images", `${name}.jpg`), canvas);
    await Deno.writeFile(join(folder, "masks", `${name}.png`), encodePalettePng(mask, side, side, OBJECT_PALETTE));
  }
}

/**
 * Films in the layout of DAVIS 2017: cut-outs that move, grow and cover each other over a photograph that pans, while the
 * light changes.
 */
export async function writeVideos(
  folder: string,
  { things, grounds, count, frames, height, width, seed }: {
    readonly things: readonly CutOut[];
    readonly grounds: readonly Photo[];
    readonly count: number;
    readonly frames: number;
    readonly height: number;
    readonly width: number;
    readonly seed: number;
  },
): Promise<void> {
  const names: string[] = [];
  for (let v = 0; v < count; v++) {
    const random = new CounterRandom(seed, STREAM.evaluation, v);
    const objects = Array.from({ length: 1 + v % 2 }, (_, at) => ({
      thing: things[(2 * v + at) % things.length],
      flip: random.float() < 0.5,
      size: height * (0.5 + 0.2 * random.float()),
      growth: -0.25 + 0.6 * random.float(),
      from: [0.1 + 0.8 * random.float(), 0.15 + 0.25 * random.float()],
      to: [0.1 + 0.8 * random.float(), 0.6 + 0.25 * random.float()],
      // The second one crosses from the other side and passes in front.
      mirrored: at === 1,
    }));
    const ground = grounds[v % grounds.length];
    const pan = Math.min(ground.width - width, 3 * frames);
    const startX = random.integer(ground.width - width - pan + 1), startY = random.integer(ground.height - height + 1);
    const name = `${String(v).padStart(2, "0")}_${objects.map(({ thing }) => thing.name).join("_")}`;
    names.push(name);
    const [images, masks] = ["JPEGImages", "Annotations"].map((part) => join(folder, part, "480p", name));
    for (const path of [images, masks]) await Deno.mkdir(path, { recursive: true });
    for (let t = 0; t < frames; t++) {
      const share = t / (frames - 1);
      const canvas = cut(ground, startY, startX + Math.round(pan * share), height, width);
      const labels = new Uint8Array(height * width);
      for (const [at, { thing, flip, size, growth, from, to, mirrored }] of objects.entries()) {
        const over = await sprite(thing.file, Math.round(size * (1 + growth * share)), flip);
        const sway = 0.06 * Math.sin(4 * Math.PI * share + at);
        const x = from[1] + (to[1] - from[1]) * share, y = from[0] + (to[0] - from[0]) * share + sway;
        const left = Math.round((mirrored ? 1 - x : x) * width - over.width / 2);
        const top = Math.round(Math.min(0.9, Math.max(0.1, y)) * height * 0.5 + height * 0.25 - over.height / 2);
        blend(canvas, labels, over, top, left, at + 1);
      }
      const light = 1 + 0.4 * Math.sin(1.5 * Math.PI * share);
      canvas.data.forEach((level, i) => canvas.data[i] = Math.min(255, Math.round(level * light)));
      const number = String(t).padStart(5, "0");
      await writeJpeg(join(images, `${number}.jpg`), canvas);
      await Deno.writeFile(join(masks, `${number}.png`), encodePalettePng(labels, height, width, OBJECT_PALETTE));
    }
  }
  await Deno.mkdir(join(folder, "ImageSets", "2017"), { recursive: true });
  await Deno.writeTextFile(join(folder, "ImageSets", "2017", "val.txt"), names.join("\n") + "\n");
}

/** Writes a photograph as JPEG. */
export async function writeJpeg(path: string, { data, height, width }: Photo, quality = 92): Promise<void> {
  const sharp = await loadSharp();
  const bytes = await sharp(data, { raw: { width, height, channels: 3 } }).jpeg({ quality }).toBuffer();
  await Deno.writeFile(path, bytes);
}

/** A cut-out with its longer side `side` pixels long. */
async function sprite(file: string, side: number, flip: boolean): Promise<Sprite> {
  const sharp = await loadSharp();
  const { data, info } = await sharp(await Deno.readFile(file)).resize({ width: side, height: side, fit: "inside" })
    .toColourspace("srgb").raw().toBuffer({ resolveWithObject: true });
  const { height, width, channels } = info;
  if (channels !== 4) throw new TypeError(`${file}: has no alpha: wants RGBA`);
  if (!flip) return { height, width, data };
  const flipped = new Uint8Array(data.length);
  for (let i = 0; i < height * width; i++) {
    const x = i % width;
    flipped.set(data.subarray(4 * i, 4 * i + 4), 4 * (i - x + width - 1 - x));
  }
  return { height, width, data: flipped };
}

/** A window of random place and size, shrunk to height × width by taking every n-th pixel of a large photograph. */
function windowOf(ground: Photo, random: CounterRandom, height: number, width: number): Photo {
  const most = Math.max(1, Math.floor(Math.min(ground.height / height, ground.width / width)));
  const step = 1 + random.integer(most);
  const top = random.integer(ground.height - height * step + 1), left = random.integer(ground.width - width * step + 1);
  const data = new Uint8Array(height * width * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      // The mean of a step × step block, so that nothing flickers.
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let dy = 0; dy < step; dy++) {
          const row = (top + y * step + dy) * ground.width + left + x * step;
          for (let dx = 0; dx < step; dx++) sum += ground.data[3 * (row + dx) + c];
        }
        data[3 * (y * width + x) + c] = Math.round(sum / (step * step));
      }
    }
  }
  return { height, width, data };
}

function cut({ data, width: full }: Photo, top: number, left: number, height: number, width: number): Photo {
  const out = new Uint8Array(height * width * 3);
  for (let y = 0; y < height; y++) {
    const from = 3 * ((top + y) * full + left);
    out.set(data.subarray(from, from + 3 * width), 3 * y * width);
  }
  return { height, width, data: out };
}

/** Lays a cut-out over a picture and its label over the mask where it covers at least half a pixel. */
function blend(canvas: Photo, labels: Uint8Array, over: Sprite, top: number, left: number, label: number): void {
  for (let y = Math.max(0, -top); y < over.height && top + y < canvas.height; y++) {
    for (let x = Math.max(0, -left); x < over.width && left + x < canvas.width; x++) {
      const from = 4 * (y * over.width + x), to = (top + y) * canvas.width + left + x;
      const alpha = over.data[from + 3] / 255;
      for (let c = 0; c < 3; c++) {
        canvas.data[3 * to + c] = Math.round(alpha * over.data[from + c] + (1 - alpha) * canvas.data[3 * to + c]);
      }
      if (alpha >= 0.5) labels[to] = label;
    }
  }
}

async function filesBelow(folder: string, wanted: RegExp): Promise<string[]> {
  const found: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    const path = join(folder, name);
    if (isDirectory) found.push(...await filesBelow(path, wanted));
    else if (wanted.test(name)) found.push(path);
  }
  return found.sort();
}
