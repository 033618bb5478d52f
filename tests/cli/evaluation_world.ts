// Files for the evaluation commands: an untrained network, classes of colours, copies, a video of a moving square.

import { join } from "node:path";
import { encodePalettePng, encodePng } from "../../cli/report/png.ts";
import { OBJECT_PALETTE } from "../../dino/eval/pictures/object_masks.ts";
import { CounterRandom, STREAM } from "../../models/rng.ts";
import { vitConfig, vitShapes } from "../../models/vit.ts";
import { writeSafetensors } from "../../models/weights/safetensors.ts";

/** Two heads of 64, two blocks, patches of 8, made for images of 32. */
export const TOY_VIT = vitConfig({ patchSize: 8, embedDim: 128, depth: 2, numHeads: 2, imageSize: 32, mlpRatio: 2 });

/** Writes seeded random weights. */
export async function writeToyWeights(path: string, seed = 3): Promise<void> {
  const random = new CounterRandom(seed, STREAM.initialization);
  const tensors = vitShapes(TOY_VIT).map(([name, shape]) => {
    const norm = /norm\d?\.weight$/.test(name), bias = name.endsWith(".bias");
    const data = Float32Array.from(
      { length: shape.reduce((a, b) => a * b, 1) },
      () => norm ? 1 : bias ? 0 : 0.06 * random.normal(),
    );
    return { name, dtype: "F32" as const, shape, bytes: () => new Uint8Array(data.buffer) };
  });
  await writeSafetensors(path, tensors);
}

/** Pixels by their place, [height, width, 3]. */
export function picture(
  height: number,
  width: number,
  colour: (y: number, x: number) => readonly [number, number, number],
): Uint8Array<ArrayBuffer> {
  const pixels = new Uint8Array(height * width * 3);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) pixels.set(colour(y, x), (y * width + x) * 3);
  return pixels;
}

/** Writes an RGB PNG, making its folder. */
export async function writePicture(path: string, pixels: Uint8Array, height: number, width: number): Promise<void> {
  await Deno.mkdir(path.replace(/[^/]*$/, ""), { recursive: true });
  await Deno.writeFile(path, encodePng(pixels, height, width));
}

/** A stripe pattern whose colour and direction depend on `kind`. */
function scene(kind: number, seed: number): (y: number, x: number) => [number, number, number] {
  const random = new CounterRandom(seed, STREAM.evaluation);
  const shift = random.integer(40), phase = random.integer(12);
  return (y, x) => {
    const wave = ((kind % 2 ? x : y) + phase) % 12 < 6 ? 60 : 0;
    return [0, 1, 2].map((c) => (c === kind % 3 ? 140 : 50) + wave + (c === 0 ? shift : 0)) as [number, number, number];
  };
}

/** Classes a, b and c, some images each, of sizes that differ: train/ and val/. */
export async function writeClasses(folder: string, perClass = 6): Promise<void> {
  for (const [part, count] of [["train", perClass], ["val", 2]] as const) {
    for (let kind = 0; kind < 3; kind++) {
      for (let i = 0; i < count; i++) {
        const height = 33 + i, width = 40 - i;
        const pixels = picture(height, width, scene(kind, 100 * kind + i + (part === "val" ? 50 : 0)));
        await writePicture(join(folder, part, "abc"[kind], `${i}.png`), pixels, height, width);
      }
    }
  }
}

/** Copydays in small: four originals, and two blocks of their copies. */
export async function writeCopies(folder: string): Promise<void> {
  for (let i = 0; i < 4; i++) {
    const [height, width] = [40 + 4 * i, 56];
    const pixels = picture(height, width, scene(i, i));
    const name = `20${i}000.png`;
    await writePicture(join(folder, "original", name), pixels, height, width);
    await writePicture(join(folder, "jpegqual/15", name), pixels.map((v) => v & 0xf8), height, width);
    await writePicture(
      join(folder, "strong", `20${i}001.png`),
      pixels.map((v) => Math.min(255, v + 20)),
      height,
      width,
    );
  }
}

/** A noisy square that moves over a smooth ground, in the layout of DAVIS; masks of every frame. */
export async function writeVideo(folder: string, frames = 4): Promise<void> {
  const [height, width, side] = [64, 96, 24];
  const random = new CounterRandom(5, STREAM.evaluation);
  const texture = Uint8Array.from({ length: side * side }, () => 120 + random.integer(136));
  for (let t = 0; t < frames; t++) {
    const [top, left] = [16 + 2 * t, 16 + 8 * t];
    const inside = (y: number, x: number) => y >= top && y < top + side && x >= left && x < left + side;
    const pixels = picture(
      height,
      width,
      (y, x) => inside(y, x) ? [texture[(y - top) * side + x - left], 40, 40] : [30, 60 + y, 40 + x],
    );
    const number = String(t).padStart(5, "0");
    await writePicture(join(folder, "JPEGImages/480p/square", `${number}.png`), pixels, height, width);
    const mask = Uint8Array.from(
      { length: height * width },
      (_, i) => inside(Math.floor(i / width), i % width) ? 1 : 0,
    );
    await Deno.mkdir(join(folder, "Annotations/480p/square"), { recursive: true });
    await Deno.writeFile(
      join(folder, "Annotations/480p/square", `${number}.png`),
      encodePalettePng(mask, height, width, OBJECT_PALETTE),
    );
  }
  await Deno.mkdir(join(folder, "ImageSets/2017"), { recursive: true });
  await Deno.writeTextFile(join(folder, "ImageSets/2017/val.txt"), "square\n");
}
