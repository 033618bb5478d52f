// A text file that lists images, one path a line, with or without a label behind it.

import type { EncodedDataset } from "./dataset.ts";
import { filesDataset } from "./folder.ts";

/** Labels given as numbers are classes as they stand; beyond this many they are taken for a mistake. */
const MAX_CLASSES = 1_000_000;

/** Whether a file's name is one that lists go by. */
export const isListName = (name: string): boolean => /\.(txt|lst|csv|tsv)$/i.test(name);

/**
 * Opens a list: `path`, or `path<tab>label`, or `path,label`, or `path label` with a number; paths are relative to the
 * list's folder; empty lines and those that begin with # are skipped. The order of the list is kept.
 *
 * @throws {RangeError} if the list is empty
 * @throws {SyntaxError} naming the line, if some lines have a label and others none, or a path comes twice
 */
export async function openList(file: string, limit = Infinity): Promise<EncodedDataset> {
  const text = await Deno.readTextFile(file);
  const directory = (await Deno.realPath(file)).replace(/[^/\\]*$/, "");
  const { ids, labels: names } = parseList(text, file, limit);
  return await filesDataset({
    kind: "list",
    name: file,
    ids,
    pathOf: (id) => /^([/\\]|[A-Za-z]:[/\\])/.test(id) ? id : directory + id,
    ...names && classesOf(names),
  });
}

/** Splits a list into paths and, where there are any, labels as written. */
export function parseList(text: string, name: string, limit = Infinity): { ids: string[]; labels?: string[] } {
  const ids: string[] = [], labels: string[] = [];
  const seen = new Set<string>();
  for (const [number, raw] of text.replace(/^\uFEFF/, "").split("\n").entries()) {
    const line = raw.trim();
    if (line === "" || line.startsWith("#")) continue;
    if (ids.length >= limit) break;
    const [, path, label] = line.match(/^(.*?\S)\s*\t\s*([^\t]+)$/) ?? line.match(/^(.*?\S)\s*,\s*([^,/\\]+)$/) ??
      line.match(/^(.*?\S)\s+(\d+)$/) ?? [line, line, undefined];
    if (ids.length > 0 && (label === undefined) !== (labels.length === 0)) {
      throw new SyntaxError(
        `${name}: line ${number + 1} has ${label === undefined ? "no label" : `the label ${JSON.stringify(label)}`}, ` +
          `the lines before have ${label === undefined ? "one" : "none"}: give every image a label, or none`,
      );
    }
    if (seen.has(path)) throw new SyntaxError(`${name}: line ${number + 1} names ${path} a second time: name it once`);
    seen.add(path);
    ids.push(path);
    if (label !== undefined) labels.push(label.trim());
  }
  if (ids.length === 0) throw new RangeError(`${name}: lists no image: write one path a line`);
  return labels.length > 0 ? { ids, labels } : { ids };
}

/** Numbers stand for themselves, so that two lists of one data set agree; names are sorted. */
function classesOf(names: string[]): { labels: Int32Array<ArrayBuffer>; classNames: string[] } {
  if (names.every((name) => /^\d+$/.test(name) && Number(name) < MAX_CLASSES)) {
    const labels = Int32Array.from(names, Number);
    const classes = labels.reduce((max, label) => Math.max(max, label + 1), 0);
    return { labels, classNames: Array.from({ length: classes }, (_, i) => String(i)) };
  }
  const classNames = [...new Set(names)].sort();
  const classOf = new Map(classNames.map((name, label) => [name, label]));
  return { labels: Int32Array.from(names, (name) => classOf.get(name)!), classNames };
}
