// Pictures for the documents: a few results in one small file each.

import { basename, join } from "node:path";
import { loadSharp } from "../../dino/data/sharp.ts";
import { OBJECT_PALETTE } from "../../dino/eval/pictures/object_masks.ts";
import { overlayMask } from "../../dino/eval/pictures/overlays.ts";
import { emptyRaster, type Raster } from "../../models/image/raster.ts";
import { resize } from "../../models/image/resample.ts";

/** Files in the documents stay below this. */
const MOST_BYTES = 100_000;
const GAP = 4;

/** Reads a picture file as RGB. */
export async function readPicture(path: string): Promise<Raster> {
  const sharp = await loadSharp();
  const { data, info } = await sharp(await Deno.readFile(path)).removeAlpha().toColourspace("srgb").raw()
    .toBuffer({ resolveWithObject: true });
  return { data: new Uint8Array(data), height: info.height, width: info.width };
}

/** Pictures of one size in rows, on white. */
export function gridOf(rows: readonly (readonly Raster[])[], height: number, width: number): Raster {
  const columns = Math.max(...rows.map((row) => row.length));
  const grid = emptyRaster(rows.length * (height + GAP) - GAP, columns * (width + GAP) - GAP);
  grid.data.fill(255);
  rows.forEach((row, r) =>
    row.forEach((picture, c) => {
      const small = resize(picture, height, width, "bicubic");
      for (let y = 0; y < height; y++) {
        const to = 3 * ((r * (height + GAP) + y) * grid.width + c * (width + GAP));
        grid.data.set(small.data.subarray(3 * y * width, 3 * (y + 1) * width), to);
      }
    })
  );
  return grid;
}

/** Writes WebP, as good as fits. */
export async function writeWebp(path: string, { data, height, width }: Raster): Promise<void> {
  const sharp = await loadSharp();
  for (let quality = 90; quality >= 30; quality -= 10) {
    const bytes = await sharp(data, { raw: { width, height, channels: 3 } }).webp({ quality, effort: 6 }).toBuffer();
    if (bytes.length > MOST_BYTES && quality > 30) continue;
    return await Deno.writeFile(path, bytes);
  }
}

/**
 * Columns of images; below each the map of its best head, that head's mask, and all heads.
 *
 * @param looks what `dino attention --out` wrote
 * @param scores Jaccard indices of each image's heads: the pictures with the best are shown
 */
export async function attentionPicture(
  looks: string,
  scores: readonly { readonly image: string; readonly heads: readonly number[] }[],
  out: string,
  columns = 6,
): Promise<void> {
  const best = (heads: readonly number[]) => Math.max(...heads);
  // The best of each thing, and of those every second: neither the best alone nor chosen by hand.
  const things = new Set<string>();
  const ranked = [...scores].sort((a, b) => best(b.heads) - best(a.heads)).filter(({ image }) => {
    const thing = image.replace(/^.*?_|\.[^.]*$/g, "");
    return !things.has(thing) && things.add(thing);
  });
  const shown = ranked.filter((_, i) => i % 2 === 0).slice(0, columns);
  const rows: Raster[][] = [[], [], [], []];
  for (const { image, heads } of shown) {
    const folder = join(looks, basename(image).replace(/\.[^.]*$/, ""));
    const head = heads.indexOf(best(heads));
    rows[0].push(await readPicture(join(folder, "img.png")));
    rows[1].push(await readPicture(join(folder, `attn-head${head}.png`)));
    rows[2].push(await readPicture(join(folder, `mask_th0.6_head${head}.png`)));
    const both = await readPicture(join(folder, "heads.png"));
    const side = both.height, left = both.width - side;
    const all = emptyRaster(side, side);
    for (let y = 0; y < side; y++) {
      all.data.set(both.data.subarray(3 * (y * both.width + left), 3 * (y + 1) * both.width), 3 * y * side);
    }
    rows[3].push(all);
  }
  await writeWebp(out, gridOf(rows, 144, 144));
}

/** A row for each of some films: frames evenly spaced, with the masks that were found laid over them. */
export async function videoPicture(davis: string, masks: string, out: string, films = 4, columns = 5): Promise<void> {
  const list = (folder: string) => [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
  const rows: Raster[][] = [];
  for (const film of list(masks).filter((_, i) => i % 2 === 1).slice(0, films)) {
    const frames = list(join(davis, "JPEGImages", "480p", film));
    const row: Raster[] = [];
    for (let c = 0; c < columns; c++) {
      const frame = frames[Math.round(c * (frames.length - 1) / (columns - 1))];
      let picture = await readPicture(join(davis, "JPEGImages", "480p", film, frame));
      const mask = await readPicture(join(masks, film, frame.replace(/\.[^.]*$/, ".png")));
      for (let object = 1; object <= 2; object++) {
        const colour = OBJECT_PALETTE.subarray(3 * object, 3 * object + 3);
        const inside = new Uint8Array(mask.data.length / 3);
        for (let i = 0; i < inside.length; i++) {
          inside[i] = colour.every((v, k) => mask.data[3 * i + k] === v) ? 1 : 0;
        }
        picture = overlayMask(picture, inside, object === 1 ? [255, 64, 64] : [64, 160, 255]);
      }
      row.push(picture);
    }
    rows.push(row);
  }
  await writeWebp(out, gridOf(rows, 120, 200));
}
