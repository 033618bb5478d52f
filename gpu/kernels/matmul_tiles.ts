// The tile shapes a matrix product can be cut into, and a guess which suits a shape.
import type { Prologue } from "../../models/graph/ops/matmul.ts";
import type { OpOf } from "../../models/graph/ops/mod.ts";
import { rootOf } from "../../models/graph/tensor.ts";
import type { LoweringLimits } from "../limits.ts";

/** What the choice of a product's variant depends on. */
export interface MatmulShape {
  /** Rows of the result. */
  readonly m: number;
  /** Columns of the result. */
  readonly n: number;
  /** Products in each sum. */
  readonly k: number;
  /** A is stored [k, m]. */
  readonly transA: boolean;
  /** B is stored [n, k]. */
  readonly transB: boolean;
  /** What A goes through as it is read. */
  readonly prologueA?: Prologue;
  /** What B goes through. */
  readonly prologueB?: Prologue;
  /** Which of a, b and c are kept as f16, by their letters. */
  readonly halves?: string;
}

/** How a workgroup cuts a product: a BM×BN tile of c, BK of the inner extent at a time, TM×TN elements a thread. */
export interface Tile {
  readonly bm: number;
  readonly bn: number;
  readonly bk: number;
  readonly tm: number;
  readonly tn: number;
}

/** A tile, or the kernel for software adapters; and into how many parts the inner extent is split (1: not at all). */
export interface TileChoice {
  readonly tile: Tile | "lanes";
  readonly splits: number;
  /** What operands go through happens in a kernel of its own, into scratch space, not as tiles are staged. Lane products always do that. */
  readonly apart?: boolean;
}

/** Which variant a product takes; the default is a guess from the shape, a tuner knows better. */
export type MatmulChooser = (shape: MatmulShape, limits: LoweringLimits) => TileChoice;

/** BM×BN×BK of a tile of {@link TILES}; `r8` where a thread makes 8×8 elements though 4×4 would do. */
export type TileName = "32x32x8" | "64x64x16" | "64x64x16r8" | "128x64x16" | "128x128x16" | "128x128x8";

/** Tiles by name. Threads of a workgroup: BM/TM × BN/TN. */
export const TILES: Readonly<Record<TileName, Tile>> = {
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
  /** 256 threads, half the staging memory: another workgroup fits where workgroup memory is the limit. */
  "128x128x8": { bm: 128, bn: 128, bk: 8, tm: 8, tn: 8 },
};

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
/** A part of the inner extent shorter than this costs more to add up than it gains. */
const SHORTEST_SPLIT = 256;
/** Parts are whole steps of any tile's BK. */
export const SPLIT_STEP = 16;
/** Multiplications from which a software adapter repays the time it takes to build a larger tile. */
const LARGE_FOR_SOFTWARE = 2 ** 29;

/**
 * Into how many parts the inner extent is split: by the shape alone. A tile adds up an element of c in the order of k, whatever
 * its size, so only splits change the bits of a result, and tuned tiles never do.
 */
export function splitsFor({ m, n, k }: MatmulShape): number {
  const groups = Math.ceil(m / 128) * Math.ceil(n / 128);
  return Math.max(1, Math.min(Math.floor(k / SHORTEST_SPLIT), Math.ceil(ENOUGH_GROUPS / groups), 64));
}

/** A tile by rules of thumb: large ones reuse more, but lose what they pad and what they leave idle. */
export function chooseTile(shape: MatmulShape, { fallback, lanes, workgroupBytes }: LoweringLimits): TileChoice {
  const { m, n, k } = shape;
  if (lanes > 0) return { tile: "lanes", splits: 1 };
  // A software adapter gains from reuse in registers only, and takes seconds to build a large tile.
  if (fallback) return { tile: m * n * k < LARGE_FOR_SOFTWARE ? TILES["32x32x8"] : TILES["64x64x16r8"], splits: 1 };
  const splits = splitsFor(shape);
  let best: Tile = TILES["32x32x8"], bestScore = -1;
  for (const name of ["128x128x16", "128x64x16", "64x64x16", "32x32x8"] as const) {
    const tile = TILES[name];
    if (tileBytes(tile) > workgroupBytes) continue;
    const groups = Math.ceil(m / tile.bm) * Math.ceil(n / tile.bn);
    const filled = m * n / (groups * tile.bm * tile.bn);
    const busy = Math.min(1, groups * splits / ENOUGH_GROUPS);
    const reuse = 1 / (64 / tile.bm + 64 / tile.bn); // multiplications per staged float, 1 for the largest
    const score = filled * busy * (0.4 + 0.6 * reuse);
    if (score > bestScore) best = tile, bestScore = score;
  }
  return { tile: best, splits };
}

/** Which of a, b and c of a product are among the tensors that are kept as f16. */
export function halvesOfProduct(op: OpOf<"matmul">, halves: ReadonlySet<number>): string {
  if (halves.size === 0) return "";
  const slots = { a: op.in.a, b: op.in.b, c: op.out.c };
  return Object.entries(slots).filter(([, t]) => halves.has(rootOf(t).id)).map(([slot]) => slot).join("");
}
