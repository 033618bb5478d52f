// The tile shapes a matrix product can be cut into, and a guess which suits a shape.
import type { LoweringLimits, MatmulShape } from "../lowering.ts";

/** How a workgroup cuts a product: a BM×BN tile of c, BK of the inner extent at a time, TM×TN elements a thread. */
export interface Tile {
  readonly bm: number;
  readonly bn: number;
  readonly bk: number;
  readonly tm: number;
  readonly tn: number;
}

/** A tile, and into how many parts the inner extent is split (1: not at all). */
export interface TileChoice {
  readonly tile: Tile;
  readonly splits: number;
}

/** Tiles by name. Threads of a workgroup: BM/TM × BN/TN. */
export const TILES = {
  /** 64 threads; small matrices and software adapters. */
  "32x32x8": { bm: 32, bn: 32, bk: 8, tm: 4, tn: 4 },
  /** 256 threads: hides latency by many threads. */
  "64x64x16": { bm: 64, bn: 64, bk: 16, tm: 4, tn: 4 },
  /** 64 threads with twice the reuse in registers. */
  "64x64x16r8": { bm: 64, bn: 64, bk: 16, tm: 8, tn: 8 },
  /** 128 threads. */
  "128x64x16": { bm: 128, bn: 64, bk: 16, tm: 8, tn: 8 },
  /** 256 threads; large matrices. */
  "128x128x16": { bm: 128, bn: 128, bk: 16, tm: 8, tn: 8 },
  /** 256 threads, half the staging memory: another workgroup fits where shared memory is the limit. */
  "128x128x8": { bm: 128, bn: 128, bk: 8, tm: 8, tn: 8 },
} as const satisfies Record<string, Tile>;

/** The name of a tile of {@link TILES}. */
export type TileName = keyof typeof TILES;

/** The name of a tile. */
export function tileName({ bm, bn, bk, tm, tn }: Tile): string {
  return `${bm}x${bn}x${bk}/${tm}x${tn}`;
}

/** Threads of a workgroup. */
export function tileThreads({ bm, bn, tm, tn }: Tile): number {
  return (bm / tm) * (bn / tn);
}

/** Padding of a staged row, in floats: keeps the transposing stores off one bank, and rows aligned to vec4. */
export const TILE_PADDING = 4;

/** Bytes of workgroup memory a tile stages. */
export function tileBytes({ bm, bn, bk }: Tile): number {
  return 4 * bk * (bm + bn + 2 * TILE_PADDING);
}

/** Workgroups that keep a large graphics card busy; fewer, and a smaller tile or a split is worth its cost. */
const ENOUGH_GROUPS = 256;
/** Multiplications from which a software adapter repays the time it takes to build a larger tile. */
const LARGE_FOR_SOFTWARE = 2 ** 29;
/** A part of the inner extent shorter than this costs more to add up than it gains. */
const SHORTEST_SPLIT = 256;

/** A tile by rules of thumb: the largest that still makes enough workgroups, then splits of a long inner extent. */
export function chooseTile({ m, n, k }: MatmulShape, { fallback, workgroupBytes }: LoweringLimits): TileChoice {
  // A software adapter gains from reuse in registers only, and takes seconds to build a large tile.
  if (fallback) return { tile: m * n * k < LARGE_FOR_SOFTWARE ? TILES["32x32x8"] : TILES["64x64x16r8"], splits: 1 };
  const order: Tile[] = [TILES["128x128x16"], TILES["128x64x16"], TILES["64x64x16"], TILES["32x32x8"]];
  const fitting = order.filter((tile) => tileBytes(tile) <= workgroupBytes);
  const groupsOf = ({ bm, bn }: Tile) => Math.ceil(m / bm) * Math.ceil(n / bn);
  const splitsOf = (tile: Tile) =>
    Math.max(1, Math.min(Math.floor(k / SHORTEST_SPLIT), Math.ceil(ENOUGH_GROUPS / groupsOf(tile)), 64));
  // Efficiency of a tile grows with its size; what it loses is padding and idle processors.
  let best = fitting[fitting.length - 1], bestScore = -1;
  for (const tile of fitting) {
    const { bm, bn } = tile;
    const filled = (m * n) / (groupsOf(tile) * bm * bn);
    const busy = Math.min(1, groupsOf(tile) * splitsOf(tile) / ENOUGH_GROUPS);
    const reuse = 1 / (1 / bm + 1 / bn) / 64; // multiplications per staged float, 1 for the largest
    const score = filled * busy * (0.4 + 0.6 * reuse);
    if (score > bestScore) best = tile, bestScore = score;
  }
  return { tile: best, splits: splitsOf(best) };
}
