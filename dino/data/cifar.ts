// Reads CIFAR-10 and CIFAR-100 in their binary layout: one byte (or two) of label, then 32×32 red, green, blue planes.

import type { PixelSource, Split } from "./dataset.ts";
import { pixelsFromMemory } from "./memory.ts";

const SIDE = 32;
const PLANE = SIDE * SIDE;

interface Layout {
  name: string;
  labelBytes: 1 | 2; // CIFAR-100 puts the coarse label before the fine one
  classes: number;
  namesFile: string;
  files: (split: Split) => RegExp;
}

const LAYOUTS: Layout[] = [
  {
    name: "CIFAR-10",
    labelBytes: 1,
    classes: 10,
    namesFile: "batches.meta.txt",
    files: (split) => split === "train" ? /^data_batch_\d+\.bin$/ : /^test_batch\.bin$/,
  },
  {
    name: "CIFAR-100",
    labelBytes: 2,
    classes: 100,
    namesFile: "fine_label_names.txt",
    files: (split) => split === "train" ? /^train\.bin$/ : /^test\.bin$/,
  },
];

/** Folders in which the archives of CIFAR put their files. */
const FOLDERS = ["cifar-10-batches-bin", "cifar-100-binary"];

/**
 * Opens a folder of CIFAR files, or a folder that holds one; undefined where it is neither.
 *
 * @throws {RangeError} if the folder is CIFAR but has no file of the split
 * @throws {SyntaxError} if a file is cut off or holds an impossible label
 */
export async function openCifar(
  folder: string,
  split: Split,
  limit = Infinity,
  pad?: number,
): Promise<PixelSource | undefined> {
  for (const directory of [folder, ...FOLDERS.map((name) => `${folder}/${name}`)]) {
    const names = await fileNames(directory);
    for (const layout of LAYOUTS) {
      const wanted = names.filter((name) => layout.files(split).test(name));
      if (wanted.length > 0) return read(folder, directory, wanted, layout, split, limit, pad);
      const other = split === "train" ? "test" : "train";
      const others = names.filter((name) => layout.files(other).test(name));
      if (others.length > 0) {
        throw new RangeError(
          `${directory}: ${layout.name} without its ${split} files: there is only ${others.join(", ")}`,
        );
      }
    }
  }
}

/** Whether a folder holds CIFAR files of that half. */
export async function hasCifarHalf(folder: string, split: Split): Promise<boolean> {
  for (const directory of [folder, ...FOLDERS.map((name) => `${folder}/${name}`)]) {
    const names = await fileNames(directory);
    if (LAYOUTS.some((layout) => names.some((name) => layout.files(split).test(name)))) return true;
  }
  return false;
}

async function read(
  folder: string,
  directory: string,
  names: string[],
  layout: Layout,
  split: Split,
  limit: number,
  pad?: number,
): Promise<PixelSource> {
  const record = layout.labelBytes + 3 * PLANE;
  const files: Uint8Array[] = [];
  let count = 0;
  for (const name of names) {
    if (count >= limit) break;
    const bytes = await Deno.readFile(`${directory}/${name}`);
    if (bytes.length === 0 || bytes.length % record !== 0) {
      throw new SyntaxError(
        `${directory}/${name}: ${bytes.length} bytes are not a whole number of ${layout.name} records of ${record}: ` +
          "the file is cut off or of another format; get it again",
      );
    }
    files.push(bytes);
    count += bytes.length / record;
  }
  const length = Math.min(count, limit);
  const data = new Uint8Array(length * 3 * PLANE);
  const labels = new Int32Array(length);
  let i = 0;
  for (const [f, bytes] of files.entries()) {
    for (let at = 0; at < bytes.length && i < length; at += record, i++) {
      const label = bytes[at + layout.labelBytes - 1];
      if (label >= layout.classes) {
        throw new SyntaxError(
          `${directory}/${names[f]}: label ${label} at byte ${at}: ${layout.name} has 0 … ${layout.classes - 1}`,
        );
      }
      labels[i] = label;
      const planes = at + layout.labelBytes, to = i * 3 * PLANE;
      for (let p = 0; p < PLANE; p++) {
        data[to + 3 * p] = bytes[planes + p];
        data[to + 3 * p + 1] = bytes[planes + PLANE + p];
        data[to + 3 * p + 2] = bytes[planes + 2 * PLANE + p];
      }
    }
  }
  return pixelsFromMemory({
    name: `${layout.name} ${split}`,
    height: SIDE,
    width: SIDE,
    channels: 3,
    data,
    labels,
    classNames: await classNames(`${directory}/${layout.namesFile}`, layout.classes),
    id: (i) => `${split}/${i}`,
    pad,
    locator: {
      kind: "raw",
      path: await Deno.realPath(folder),
      split,
      limit: limit === Infinity ? undefined : limit,
      pad,
    },
  });
}

async function classNames(file: string, classes: number): Promise<string[]> {
  try {
    const names = (await Deno.readTextFile(file)).split("\n").map((line) => line.trim()).filter((line) => line !== "");
    if (names.length === classes) return names;
  } catch { /* optional: numbers do as well */ }
  return Array.from({ length: classes }, (_, i) => String(i));
}

async function fileNames(directory: string): Promise<string[]> {
  const names: string[] = [];
  try {
    for await (const entry of Deno.readDir(directory)) if (!entry.isDirectory) names.push(entry.name);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory)) throw error;
  }
  return names.sort();
}
