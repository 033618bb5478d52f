// Copy detection and retrieval on wallpapers: altered copies in many sizes and shapes, searched among other pictures.
//
//   deno run -A tests/evaluations/wallpapers.ts RUN WALLPAPERS OTHERS OUT [PICTURES]
//
// WALLPAPERS: Debian's plasma-workspace-wallpapers, unpacked (dpkg-deb -x). OTHERS: a folder of other pictures, such as the
// JPEGs of Debian's opencv-doc. RUN: a trained run; it is compared with its own untrained network and with colour histograms.

import { basename, join } from "node:path";
import { averagePrecision } from "../../dino/eval/retrieval/ranking.ts";
import { copydaysBlock, scoreCopies } from "../../dino/eval/retrieval/copy_detection.ts";
import { normalizeRows, searchNeighbours } from "../../dino/eval/knn/knn.ts";
import { loadSharp } from "../../dino/data/sharp.ts";
import { CounterRandom, STREAM } from "../../models/rng.ts";
import { type Photo, photographs, readPhoto, writeJpeg } from "./compositions.ts";
import { dino, type Printed, writeUntrained } from "./dino.ts";
import { readPicture, writeWebp } from "./pictures.ts";

/** Pictures of anything else among which the copies are searched; the others are what whitening is learned from. */
const DISTRACTORS = 150;

/** Widths and heights people give their screens; a wallpaper is cut to each shape. */
const SCREENS = [[320, 240], [400, 300], [384, 240], [480, 270], [270, 480], [300, 300]] as const;

/** Cuts a photograph to a shape from its middle, or from elsewhere, and resizes it. */
async function cutTo(photo: Photo, width: number, height: number, share = 1, at = [0.5, 0.5]): Promise<Photo> {
  const scale = Math.min(photo.width / width, photo.height / height) * Math.sqrt(share);
  const w = Math.max(1, Math.floor(width * scale)), h = Math.max(1, Math.floor(height * scale));
  const left = Math.floor((photo.width - w) * at[0]), top = Math.floor((photo.height - h) * at[1]);
  const data = new Uint8Array(w * h * 3);
  for (let y = 0; y < h; y++) {
    const from = 3 * ((top + y) * photo.width + left);
    data.set(photo.data.subarray(from, from + 3 * w), 3 * y * w);
  }
  const sharp = await loadSharp();
  const out = await sharp(data, { raw: { width: w, height: h, channels: 3 } })
    .resize({ width, height, fit: "fill" }).removeAlpha().raw().toBuffer({ resolveWithObject: true });
  return { height, width, data: out.data };
}

const changed = (photo: Photo, change: (r: number, g: number, b: number, x: number, y: number) => number[]): Photo => {
  const data = new Uint8Array(photo.data.length);
  for (let i = 0; i < data.length; i += 3) {
    const [r, g, b] = photo.data.subarray(i, i + 3), at = i / 3;
    const value = change(r, g, b, at % photo.width, Math.floor(at / photo.width));
    for (let c = 0; c < 3; c++) data[i + c] = Math.min(255, Math.max(0, Math.round(value[c])));
  }
  return { ...photo, data };
};

/** What people do to pictures: grey, a scan, a scrawl, another's corner. */
function spoil(photo: Photo, kind: number, random: CounterRandom): Photo {
  const grey = (r: number, g: number, b: number) => 0.3 * r + 0.59 * g + 0.11 * b;
  switch (kind % 3) {
    case 0: // a faded photocopy
      return changed(photo, (r, g, b) => Array(3).fill(60 + 0.6 * grey(r, g, b) + 12 * random.normal()));
    case 1: // mirrored and tinted
      return changed(photo, (_r, _g, _b, x, y) => {
        const at = 3 * (y * photo.width + photo.width - 1 - x);
        const [r, g, b] = photo.data.subarray(at, at + 3);
        return [1.15 * r + 15, 0.9 * g, 0.75 * b];
      });
    default: // a stripe over it
      return changed(photo, (r, g, b, x, y) => Math.abs(x - y) < photo.height / 6 ? [250, 240, 90] : [r, g, b]);
  }
}

/** Writes Copydays in small (`copies/`) and a Revisited-like database with its ground truth (`database/`, `truth.json`). */
async function write(files: readonly string[], others: readonly string[], out: string): Promise<void> {
  const copies = join(out, "copies"), database = join(out, "database"), distractors = join(out, "distractors");
  const whitening = join(out, "whitening");
  for (const block of ["original", "jpegqual/10", "crops/50", "strong"]) {
    await Deno.mkdir(join(copies, block), { recursive: true });
  }
  for (const folder of [database, distractors, whitening]) await Deno.mkdir(folder, { recursive: true });
  const images: string[] = [], queries: string[] = [], gnd: Record<string, number[]>[] = [];
  const keep = async (name: string, photo: Photo, quality?: number) => {
    await writeJpeg(join(database, `${name}.jpg`), photo, quality);
    return images.push(name) - 1;
  };
  for (const [i, file] of files.entries()) {
    const random = new CounterRandom(1, STREAM.evaluation, i);
    const photo = await readPhoto(file, 400);
    const name = `2${String(i).padStart(3, "0")}`;
    const [width, height] = [
      Math.min(480, photo.width),
      Math.round(Math.min(480, photo.width) * photo.height / photo.width),
    ];
    const original = await cutTo(photo, width, height);
    await writeJpeg(join(copies, "original", `${name}00.jpg`), original);
    await writeJpeg(join(copies, "jpegqual/10", `${name}00.jpg`), original, 10);
    const at = [random.float(), random.float()];
    await writeJpeg(join(copies, "crops/50", `${name}00.jpg`), await cutTo(photo, width, height, 0.5, at));
    await writeJpeg(join(copies, "strong", `${name}01.jpg`), spoil(await cutTo(photo, 300, 225, 0.7, at), i, random));
    // Retrieval: other shapes of the whole picture are easy, cut and spoiled ones are hard; asked with a quarter of it.
    const easy: number[] = [], hard: number[] = [];
    for (const [s, [w, h]] of SCREENS.entries()) easy.push(await keep(`${name}_shape${s}`, await cutTo(photo, w, h)));
    for (let h = 0; h < 3; h++) {
      const part = await cutTo(photo, 320, 240, 0.45, [random.float(), random.float()]);
      hard.push(await keep(`${name}_spoiled${h}`, spoil(part, h, random), 40));
    }
    queries.push(`${name}_query`);
    await writeJpeg(join(database, `${name}_query.jpg`), await cutTo(photo, 320, 240, 0.25, [0.5, 0.5]));
    gnd.push({ easy, hard, junk: [] });
  }
  for (const [i, file] of others.entries()) {
    const photo = await readPhoto(file, 240);
    const name = `other${String(i).padStart(3, "0")}`;
    await writeJpeg(join(i < DISTRACTORS ? distractors : whitening, `${name}.jpg`), photo);
    if (i < DISTRACTORS) await keep(name, photo);
  }
  await Deno.writeTextFile(join(out, "truth.json"), JSON.stringify({ imlist: images, qimlist: queries, gnd }));
}

/** Colour histograms, the square root of 8 × 8 × 8 shares: the simplest descriptor there is. */
async function histograms(paths: readonly string[]): Promise<Float32Array> {
  const rows = new Float32Array(paths.length * 512);
  for (const [i, path] of paths.entries()) {
    const { data } = await readPhoto(path, 128);
    const row = rows.subarray(512 * i, 512 * (i + 1));
    for (let p = 0; p < data.length; p += 3) row[(data[p] >> 5) * 64 + (data[p + 1] >> 5) * 8 + (data[p + 2] >> 5)]++;
    row.forEach((v, b) => row[b] = Math.sqrt(v));
  }
  return normalizeRows(rows, 512);
}

async function scoreHistograms(out: string): Promise<Record<string, number>> {
  const list = (folder: string) => photographs(join(out, folder), 1);
  const originals = await list("copies/original");
  const database = await histograms([...originals, ...await list("distractors")]);
  const scores: Record<string, number> = {};
  for (const block of ["jpegqual/10", "crops/50", "strong"]) {
    const files = await list(`copies/${block}`);
    const found = await searchNeighbours(await histograms(files), database, 512, 20);
    scores[block] = scoreCopies(copydaysBlock(block, files, originals), found, 0).meanAveragePrecision;
  }
  const truth = JSON.parse(await Deno.readTextFile(join(out, "truth.json")));
  const at = (name: string) => join(out, "database", `${name}.jpg`);
  const rows = await histograms(truth.imlist.map(at)), asked = await histograms(truth.qimlist.map(at));
  const found = await searchNeighbours(asked, rows, 512, truth.imlist.length);
  for (const [name, right, skipped] of [["medium", ["easy", "hard"], []], ["hard", ["hard"], ["easy"]]] as const) {
    let sum = 0;
    truth.gnd.forEach((entry: Record<string, number[]>, q: number) => {
      const wanted = new Set(right.flatMap((key) => entry[key])), left = new Set(skipped.flatMap((key) => entry[key]));
      const ranking = [...found.indices.subarray(q * found.k, (q + 1) * found.k)].filter((i) => !left.has(i));
      const positions = ranking.flatMap((row, place) => wanted.has(row) ? [place] : []);
      sum += averagePrecision(positions, wanted.size);
    });
    scores[name] = sum / truth.gnd.length;
  }
  return scores;
}

async function scoreNetwork(weights: string, out: string, whitened = false): Promise<Record<string, number>> {
  const copies = ["--data", join(out, "copies"), "--distractors", join(out, "distractors"), "--imsize", "160"];
  const whitening = whitened ? ["--whitening", join(out, "whitening"), "--center-whitening"] : [];
  const found: Printed = await dino("copy_detection", weights, ...copies, ...whitening);
  const scores = Object.fromEntries(found.blocks.map((b: { name: string; mAP: number }) => [b.name, b.mAP]));
  const data = ["--data", join(out, "database"), "--ground-truth", join(out, "truth.json")];
  const ranked: Printed = await dino("retrieval", weights, ...data, "--multiscale", "--imsize", "224", ...whitening);
  return { ...scores, medium: ranked.medium.mAP, hard: ranked.hard.mAP };
}

if (import.meta.main) {
  const [run, wallpapers, others, out, pictures] = Deno.args;
  if (out === undefined) throw new RangeError("wants RUN WALLPAPERS OTHERS OUT: see the head of this file");
  const largest = new Map<string, string>();
  for (const extension of ["jpg", "png"]) {
    for (const file of await photographs(wallpapers, 1000, extension)) {
      if (basename(file).startsWith("screenshot")) continue;
      largest.set(file.split("/").at(-4)!, file);
    }
  }
  const files = [...largest].sort(([a], [b]) => a < b ? -1 : 1).map(([, file]) => file);
  await write(files, await photographs(others, 300), out);
  const untrained = await writeUntrained(run, join(out, "untrained.safetensors"));
  const table = {
    trained: await scoreNetwork(run, out),
    untrained: await scoreNetwork(untrained, out),
    "trained, whitened": await scoreNetwork(run, out, true),
    "untrained, whitened": await scoreNetwork(untrained, out, true),
    histogram: await scoreHistograms(out),
  };
  console.log(`${files.length} wallpapers`);
  console.table(table);
  await Deno.writeTextFile(join(out, "scores.json"), JSON.stringify(table, null, 2));
  if (pictures !== undefined) {
    const index = join(out, "database.index"), sheet = join(out, "sheet.png");
    const queries = [0, 5, 15, 24, 25].map((i) => join(out, "database", `2${String(i).padStart(3, "0")}_query.jpg`));
    await dino("search", index, ...queries, "--data", join(out, "database"), "--weights", run, "--sheet", sheet);
    await Deno.mkdir(pictures, { recursive: true });
    await writeWebp(join(pictures, "search.webp"), await readPicture(sheet));
  }
}
