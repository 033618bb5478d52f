// Copydays: which original is an altered image a copy of, among distractors?

import type { Neighbours } from "../knn/knn.ts";
import { averagePrecision } from "./ranking.ts";

/** Results looked at for each query; a copy ranked lower counts as not found. */
export const COPY_DETECTION_DEPTH = 20;

/** Queries that were altered in one way: crop and compression strength, or by hand ("strong"). */
export interface CopyBlock {
  /** What was done. */
  readonly name: string;
  /** File name of each query. */
  readonly files: readonly string[];
  /** Rows of the database that each query is a copy of. */
  readonly originals: readonly (readonly number[])[];
}

/** Scores of a block, 0 … 1. */
export interface CopyScore {
  /** What was done. */
  readonly name: string;
  /** Over the queries. */
  readonly meanAveragePrecision: number;
  /** Of each query. */
  readonly averagePrecision: readonly number[];
}

/** Characters of a Copydays file name that say which scene it is of: 2001xx.jpg all come from 200100.jpg. */
const SCENE_CHARACTERS = 4;

/**
 * Originals of the queries of a block by Copydays' rules: strong copies are named after their scene; any other block has
 * as many files as there are originals, in the same order.
 *
 * @throws {RangeError} if a block that goes by order has another number of files
 */
export function copydaysBlock(name: string, files: readonly string[], originals: readonly string[]): CopyBlock {
  const base = (path: string) => path.slice(path.lastIndexOf("/") + 1);
  if (name !== "strong") {
    if (files.length !== originals.length) {
      throw new RangeError(
        `copy detection: block "${name}" has ${files.length} images, there are ${originals.length} originals: ` +
          "its images must be those of the originals, in the same order",
      );
    }
    return { name, files, originals: files.map((_, i) => [i]) };
  }
  const scenes = new Map<string, number[]>();
  originals.forEach((path, i) => {
    const scene = base(path).slice(0, SCENE_CHARACTERS);
    scenes.set(scene, [...scenes.get(scene) ?? [], i]);
  });
  return { name, files, originals: files.map((path) => scenes.get(base(path).slice(0, SCENE_CHARACTERS)) ?? []) };
}

/**
 * Scores a block from the nearest database rows of its queries.
 *
 * @param neighbours of all queries; the block's begin at row `start`
 */
export function scoreCopies(block: CopyBlock, neighbours: Neighbours, start: number): CopyScore {
  const { k, indices } = neighbours;
  const averagePrecisions = block.originals.map((originals, q) => {
    const positions: number[] = [];
    for (let i = 0; i < k; i++) if (originals.includes(indices[(start + q) * k + i])) positions.push(i);
    return originals.length === 0 ? 0 : averagePrecision(positions, originals.length);
  });
  const sum = averagePrecisions.reduce((a, b) => a + b, 0);
  return {
    name: block.name,
    meanAveragePrecision: sum / averagePrecisions.length,
    averagePrecision: averagePrecisions,
  };
}
