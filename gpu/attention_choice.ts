// Which kernels compute an attention: a guess by rules of thumb, and what a tuner may compare. None changes a bit of the result.
import type { LoweringLimits } from "./limits.ts";
import { MOST_SINGLE, singleBytes } from "./kernels/attention_single.ts";
import {
  type AttentionTile,
  backwardBytes,
  chooseAttentionTile,
  forwardBytes,
  rankAttentionTiles,
} from "./kernels/attention_tiles.ts";

/** What the choice depends on. */
export interface AttentionShape {
  /** The gradients instead of the values. */
  readonly backward: boolean;
  /** Sequences that attend each to itself. */
  readonly images: number;
  /** Heads of each. */
  readonly heads: number;
  /** Tokens of a sequence. */
  readonly tokens: number;
  /** Its first tokens that ask. */
  readonly queries: number;
  /** Columns of a head. */
  readonly width: number;
  /** Queries, keys and values are kept as f16. */
  readonly half?: boolean;
}

/**
 * Kernels for an attention. `tiles`: scores stay in workgroup memory, and the backward pass computes them twice; `together` heads share
 * a workgroup. `single`, backward: one tile holds all tokens, scores are computed once. `stored`, backward: scores are stored for
 * some images at a time, and the rest is products of matrices.
 */
export type AttentionChoice =
  | { readonly kind: "tiles"; readonly rq: number; readonly rk: number; readonly together: number }
  | { readonly kind: "single" }
  | { readonly kind: "stored" };

/** Chooses kernels for an attention. */
export type AttentionChooser = (shape: AttentionShape, limits: LoweringLimits) => AttentionChoice;

/** Longer sequences never store their scores. */
export const MOST_STORED = 256;
/** Heads of longer sequences fill a workgroup of their own. */
const MOST_TOGETHER = 64;
/** Rows of a thread on a software adapter, which builds a long kernel for seconds. */
const LARGEST_ON_FALLBACK = 2;
/** Tiles worth timing besides the guess. */
const TILES_COMPARED = 3;

const bytesOf = ({ backward }: AttentionShape) => backward ? backwardBytes : forwardBytes;

function fitsSingle({ backward, tokens, width }: AttentionShape, { workgroupBytes }: LoweringLimits): boolean {
  return backward && tokens <= MOST_SINGLE && singleBytes(width, tokens) <= workgroupBytes;
}

/** The kernels that rules of thumb choose. Throws {RangeError} if no tile fits the device. */
export const guessAttention: AttentionChooser = (shape, limits) => {
  const { tokens, queries, width } = shape, { fallback, workgroupBytes } = limits;
  if (!fallback && fitsSingle(shape, limits)) return { kind: "single" };
  const largest = fallback ? LARGEST_ON_FALLBACK : undefined;
  return tilesOf(chooseAttentionTile(queries, tokens, width, bytesOf(shape), workgroupBytes, largest));
};

function tilesOf({ rq, rk }: AttentionTile, together = 1): AttentionChoice {
  return { kind: "tiles", rq, rk, together };
}

/** What is worth comparing on a device, the guess first. */
export function attentionCandidates(shape: AttentionShape, limits: LoweringLimits): AttentionChoice[] {
  const { backward, heads, tokens, queries, width } = shape, { workgroupBytes } = limits;
  const guess = guessAttention(shape, limits);
  const ranked = rankAttentionTiles(queries, tokens, width, bytesOf(shape), workgroupBytes);
  // A forward pass adds up block of keys by block, so every candidate has the guess's blocks.
  const rk = guess.kind === "tiles" ? guess.rk : undefined;
  const tiles = backward ? ranked : ranked.filter((tile) => tile.rk === rk);
  const made: AttentionChoice[] = [guess, ...tiles.slice(0, TILES_COMPARED).map((tile) => tilesOf(tile))];
  if (fitsSingle(shape, limits)) made.push({ kind: "single" });
  if (backward && tokens > 1 && tokens <= MOST_STORED) made.push({ kind: "stored" });
  if (!backward && heads > 1 && tokens <= MOST_TOGETHER) {
    for (const tile of tiles) {
      if (2 * forwardBytes({ width, ...tile }) <= workgroupBytes) {
        made.push(tilesOf(tile, 2));
        break;
      }
    }
  }
  return [...new Map(made.map((choice) => [attentionChoiceName(choice), choice])).values()];
}

/** Of what a tuner may choose on a device, the kernels that take most scratch space. */
export const hungriestAttention: AttentionChooser = (shape, limits) => {
  if (limits.fallback) return guessAttention(shape, limits); // never tuned
  return attentionCandidates(shape, limits).find(({ kind }) => kind === "stored") ?? guessAttention(shape, limits);
};

/** `5x2`, `5x2+2`, `single` or `stored`. */
export function attentionChoiceName(choice: AttentionChoice): string {
  if (choice.kind !== "tiles") return choice.kind;
  return `${choice.rq}x${choice.rk}${choice.together > 1 ? `+${choice.together}` : ""}`;
}

/** The choice of a name; undefined for anything else, or for one that does not suit the shape and the device. */
export function attentionChoiceOf(
  name: string,
  shape: AttentionShape,
  limits: LoweringLimits,
): AttentionChoice | undefined {
  return attentionCandidates(shape, limits).find((choice) => attentionChoiceName(choice) === name);
}
