// A folder of image files, nested or flat, as a data set.

import { arrangePaths } from "./class_folders.ts";
import type { EncodedDataset, EncodedEntry, Split } from "./dataset.ts";
import { encodedBytes, IMAGE_EXTENSIONS, isImageName } from "./decode.ts";

/** Extensions of pictures that are not decoded: whoever has some should know that they take no part. */
const FOREIGN_PICTURES =
  /\.(bmp|heic|heif|avif|jp2|jxl|svg|ppm|pgm|psd|dng|cr2|cr3|nef|arw|raf|exr|hdr|dcm|nii|czi|nd2)$/i;

/** Files whose size and time are asked for at once. */
const STATS_IN_FLIGHT = 128;

/**
 * Finds the images under a folder, following links, in the order of their paths; class folders become labels.
 *
 * @throws {RangeError} if there is no image file
 */
export async function openFolder(folder: string, split: Split, limit = Infinity): Promise<EncodedDataset> {
  const root = await Deno.realPath(folder);
  const { paths, foreign } = await imagesUnder(root);
  if (paths.length === 0) {
    throw new RangeError(
      `${folder}: no image file in it or its subfolders (looked for ${
        IMAGE_EXTENSIONS.map((e) => "." + e).join(" ")
      }): ` +
        (foreign ? `it has ${foreign}, which are not decoded: convert them` : "name the folder that holds the images"),
    );
  }
  const arrangement = arrangePaths(paths, split);
  const order = arrangement.order.subarray(0, Math.min(limit, arrangement.order.length));
  const dataset = await filesDataset({
    kind: "folder",
    name: folder,
    ids: Array.from(order, (i) => paths[i]),
    pathOf: (id) => `${root}/${id}`,
    labels: arrangement.labels?.slice(0, order.length),
    classNames: arrangement.classNames,
  });
  return { ...dataset, foreign };
}

/** Files named one by one, as a data set; their sizes and times are read here. */
export async function filesDataset(files: {
  kind: "folder" | "list";
  name: string;
  ids: string[];
  pathOf: (id: string) => string;
  labels?: Int32Array<ArrayBuffer>;
  classNames?: readonly string[];
}): Promise<EncodedDataset> {
  const { kind, name, ids, pathOf, labels, classNames } = files;
  const entries: EncodedEntry[] = [];
  for (let start = 0; start < ids.length; start += STATS_IN_FLIGHT) {
    entries.push(...await Promise.all(ids.slice(start, start + STATS_IN_FLIGHT).map((id) => entryOf(id, pathOf(id)))));
  }
  return {
    kind,
    name,
    length: ids.length,
    labels,
    classNames,
    entry: (i) => entries[i],
    read: (i) => encodedBytes(entries[i].path!),
    close: () => {},
  };
}

async function entryOf(id: string, path: string): Promise<EncodedEntry> {
  try {
    const { size, mtime } = await Deno.stat(path);
    return { id, key: path, path, bytes: size, mtime: mtime?.getTime() ?? 0 };
  } catch {
    return { id, key: path, path, bytes: -1, mtime: 0 }; // reported by name when it is to be decoded
  }
}

/** Paths of image files relative to `root`, with "/" between folders; and pictures of other kinds, counted in words. */
async function imagesUnder(root: string): Promise<{ paths: string[]; foreign?: string }> {
  const found: string[] = [];
  const others = new Map<string, number>();
  const visited = new Set([root]); // real paths: links may lead back up
  const walk = async (prefix: string) => {
    for await (const entry of Deno.readDir(`${root}/${prefix}`)) {
      if (entry.name.startsWith(".")) continue;
      const path = prefix + entry.name;
      let isDirectory = entry.isDirectory;
      if (entry.isSymlink) {
        const target = await Deno.stat(`${root}/${path}`).catch(() => undefined);
        if (!target) continue; // a link to nothing
        isDirectory = target.isDirectory;
        if (isDirectory) {
          const real = await Deno.realPath(`${root}/${path}`);
          if (visited.has(real)) continue;
          visited.add(real);
        }
      }
      if (isDirectory) await walk(path + "/");
      else if (isImageName(entry.name)) found.push(path);
      else {
        const [extension] = FOREIGN_PICTURES.exec(entry.name.toLowerCase()) ?? [];
        if (extension) others.set(extension, (others.get(extension) ?? 0) + 1);
      }
    }
  };
  await walk("");
  const foreign = Array.from(others, ([extension, count]) => `${count} ${extension}`).join(", ");
  return { paths: found, foreign: foreign || undefined };
}
