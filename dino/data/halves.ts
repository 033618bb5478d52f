// Whether a data set ships in two halves: one to learn from, one to test on.

import { hasCifarHalf } from "./cifar.ts";
import { TEST_FOLDERS } from "./class_folders.ts";
import { isImageName } from "./decode.ts";
import { hasIdxHalf } from "./idx.ts";

/**
 * True for a folder that holds `train` and `val` (or `test`, `valid`, `validation`), and for CIFAR and IDX files of both
 * kinds: what {@linkcode openPixels} opens differently for `split: "test"`. Archives and lists are one half.
 */
export async function hasTestHalf(path: string): Promise<boolean> {
  if (!(await Deno.stat(path).catch(() => undefined))?.isDirectory) return false;
  for (const has of [hasCifarHalf, hasIdxHalf]) if (await has(path, "train")) return await has(path, "test");
  // As paths of images are read: folders that all of them share come first.
  for (let folder = path;;) {
    const folders: string[] = [];
    for await (const { name, isFile } of Deno.readDir(folder)) {
      if (name.startsWith(".")) continue;
      if (isFile && isImageName(name)) return false;
      if (!isFile && (await Deno.stat(`${folder}/${name}`).catch(() => undefined))?.isDirectory) folders.push(name);
    }
    if (folders.length !== 1) {
      const test = folders.filter((name) => TEST_FOLDERS.includes(name));
      return folders.includes("train") && test.length > 0 && folders.length === test.length + 1;
    }
    folder = `${folder}/${folders[0]}`;
  }
}
