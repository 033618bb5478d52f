// Reads splits and classes off the paths of images: train/cat/1.jpg is a training image of class cat.

import type { Split } from "./dataset.ts";

/** What a list of paths says about its images. */
export interface PathArrangement {
  /** Positions, in the list given, of the images that belong to the split, sorted by path. */
  order: Uint32Array<ArrayBuffer>;
  /** Class of each image in `order`; absent where the folders are no classes. */
  labels?: Int32Array<ArrayBuffer>;
  classNames?: string[];
}

/** Names of folders whose images are for testing, beside `train`. */
export const TEST_FOLDERS: readonly string[] = ["test", "val", "valid", "validation"];

/**
 * Sorts image paths (with "/" between folders) by code unit and finds the split and the classes in them.
 *
 * Leading folders that all images share are skipped. If what remains is `train` and one of `test`, `val`, `valid`,
 * `validation`, the split is taken. Then, where every image lies in a folder and there are at least two, the first
 * folder is the class.
 */
export function arrangePaths(paths: readonly string[], split: Split): PathArrangement {
  let chosen = Array.from(paths.keys()).sort((a, b) => paths[a] < paths[b] ? -1 : paths[a] > paths[b] ? 1 : 0);
  let start = sharedFolders(paths, chosen);
  const top = new Set(chosen.map((i) => firstFolder(paths[i], start)));
  const test = TEST_FOLDERS.filter((name) => top.has(name));
  if (top.has("train") && test.length > 0 && top.size === test.length + 1) {
    const folder = split === "train" ? "train" : test[0];
    chosen = chosen.filter((i) => firstFolder(paths[i], start) === folder);
    start = sharedFolders(paths, chosen);
  }
  const order = Uint32Array.from(chosen);
  const classNames = [...new Set(chosen.map((i) => firstFolder(paths[i], start)))].sort();
  if (classNames.length < 2 || classNames.includes("")) return { order };
  const classOf = new Map(classNames.map((name, label) => [name, label]));
  return { order, classNames, labels: Int32Array.from(chosen, (i) => classOf.get(firstFolder(paths[i], start))!) };
}

/** Length of the folders, with their slash, that all the chosen paths begin with. */
function sharedFolders(paths: readonly string[], chosen: readonly number[]): number {
  if (chosen.length === 0) return 0;
  // Sorted: what the first and the last share, all share.
  const first = paths[chosen[0]], last = paths[chosen[chosen.length - 1]];
  let shared = 0;
  for (let i = 0; i < first.length && first[i] === last[i]; i++) if (first[i] === "/") shared = i + 1;
  return shared;
}

/** The folder behind `start`; "" for a file that lies there itself. */
function firstFolder(path: string, start: number): string {
  const slash = path.indexOf("/", start);
  return slash < 0 ? "" : path.slice(start, slash);
}
