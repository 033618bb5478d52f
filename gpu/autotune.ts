// Chooses kernels by timing: the products and attentions that matter in a program, within seconds, remembered between runs.
import { OutOfMemoryError } from "../models/graph/backend.ts";
import { matmulExtents } from "../models/graph/ops/matmul.ts";
import type { OpOf } from "../models/graph/ops/mod.ts";
import type { Program } from "../models/graph/program.ts";
import {
  attentionCandidates,
  type AttentionChoice,
  attentionChoiceOf,
  type AttentionChooser,
  type AttentionShape,
  guessAttention,
  hungriestAttention,
} from "./attention_choice.ts";
import {
  chooseTile,
  halvesOfProduct,
  type MatmulChooser,
  type MatmulShape,
  splitsFor,
  tileBytes,
  type TileName,
  tileName,
  TILES,
} from "./kernels/matmul_tiles.ts";
import type { LoweringLimits } from "./limits.ts";
import { prepareProgram } from "./lower.ts";
import { attentionShape } from "./ops/attention.ts";
import { type AttentionTuning, compareAttention } from "./tuning/attention.ts";
import { compareTiles, tilesFor, type TuningResult } from "./tuning/matmul.ts";
import { TuningOperands } from "./tuning/operands.ts";
import type { Tunable } from "./tuning/tunable.ts";

/** Where choices are kept between runs. The library writes no files: who owns a cache folder hands this in. */
export interface TuningCache {
  /** What `save` was last given, if anything. */
  load(): Promise<string | undefined>;
  /** Keeps `text` for the next run. */
  save(text: string): Promise<void>;
}

/** How long and what to tune. */
export interface TuningOptions {
  /** Remembers choices between runs. */
  readonly cache?: TuningCache;
  /** Stop looking after this many seconds, 8 by default; what was not reached keeps the guess, and is looked at by the next run. */
  readonly seconds?: number;
  /** Tiles to compare. */
  readonly tiles?: readonly TileName[];
}

/** Raise it when kernels change enough for old timings to mislead. */
const CACHE_VERSION = 3;
/** Products that together make this share of a program's arithmetic are tuned. */
const SHARE = 0.97;
const SECONDS = 8;

/** What was found best on one adapter, by bucket. */
interface Choices {
  readonly tiles: Record<string, TileName>;
  readonly attention: Record<string, string>;
}

/**
 * Chooses tiles and attention's kernels by timing. Neither changes the bits of a result (see `splitsFor` and `attention_choice.ts`), so
 * tuning does not either.
 */
export class Tuner {
  readonly results: TuningResult[] = [];
  readonly attention: AttentionTuning[] = [];
  readonly #chosen: Choices = { tiles: {}, attention: {} };
  /** Buckets whose comparison had to stop early: good for this run, not to be remembered. */
  readonly #hurried = new Set<string>();
  /** What the cache knows of other adapters. */
  #others: Record<string, unknown> = {};
  #loaded = false;
  #spent = 0;

  constructor(readonly backend: Tunable, readonly options: TuningOptions = {}) {}

  /** Time that comparing has taken. */
  get seconds(): number {
    return this.#spent;
  }

  /** The tuned tile of a shape's bucket, or the guess. */
  readonly choose: MatmulChooser = (shape, limits) => {
    const name = this.#chosen.tiles[bucketOf(shape)];
    if (!name || tileBytes(TILES[name]) > limits.workgroupBytes) return chooseTile(shape, limits);
    return { tile: TILES[name], splits: splitsFor(shape) };
  };

  /** The tuned kernels of an attention, or the guess. */
  readonly chooseAttention: AttentionChooser = (shape, limits) =>
    this.#known(shape, limits) ?? guessAttention(shape, limits);

  /** The tuned kernels of an attention; where it is not tuned yet, those that take most room of what may be chosen. */
  readonly expectAttention: AttentionChooser = (shape, limits) =>
    this.#known(shape, limits) ?? hungriestAttention(shape, limits);

  /** Tunes what is not known yet, products by most arithmetic, then attention, until time or room is used up. */
  async prepare(program: Program): Promise<void> {
    if (!this.#loaded) await this.#load();
    const operands = new TuningOperands(this.backend), { memory } = this.backend;
    try {
      if (await this.#compare(program, operands)) await this.options.cache?.save(this.#text());
    } finally {
      operands.free();
      this.backend.shrinkShared(memory); // what a comparison took, the program may not need
    }
  }

  /** Whether anything was found. */
  async #compare(program: Program, operands: TuningOperands): Promise<boolean> {
    const { backend, options: { tiles, seconds = SECONDS } } = this, { limits } = backend;
    let found = false;
    /** Runs a comparison if it is worth it; false when there is no use in another. */
    const compare = async (bucket: string, known: object, look: (until: number) => Promise<boolean>) => {
      if (bucket in known) return true;
      if (this.#spent >= seconds) return false;
      const start = performance.now();
      try {
        if (await look(start + 1000 * (seconds - this.#spent))) this.#hurried.add(bucket);
        found = true;
        return true;
      } catch (error) {
        if (error instanceof OutOfMemoryError) return false; // then the guess has to do
        throw error;
      } finally {
        this.#spent += (performance.now() - start) / 1000;
      }
    };
    const { products, attentions } = importantShapes(program, backend);
    for (const shape of products) {
      const bucket = bucketOf(shape);
      const go = await compare(bucket, this.#chosen.tiles, async (until) => {
        const result = await compareTiles(operands, shape, tiles ?? guessFirst(shape, limits), until);
        this.results.push(result);
        this.#chosen.tiles[bucket] = result.chosen;
        return result.unfinished;
      });
      if (!go) break;
    }
    for (const shape of attentions) {
      const bucket = attentionBucket(shape);
      const go = await compare(bucket, this.#chosen.attention, async (until) => {
        const result = await compareAttention(operands, shape, attentionCandidates(shape, limits), until);
        this.attention.push(result);
        this.#chosen.attention[bucket] = result.chosen;
        return result.unfinished;
      });
      if (!go) break;
    }
    return found;
  }

  #known(shape: AttentionShape, limits: LoweringLimits): AttentionChoice | undefined {
    const name = this.#chosen.attention[attentionBucket(shape)];
    return name ? attentionChoiceOf(name, shape, limits) : undefined;
  }

  /** One adapter as another implementation sees it is another. */
  get #adapter(): string {
    const { strict, adapter: { vendor, description } } = this.backend;
    return `${strict ? "elsewhere: " : ""}${vendor} ${description}`;
  }

  #text(): string {
    const kept = <T>(choices: Record<string, T>) =>
      Object.fromEntries(Object.entries(choices).filter(([bucket]) => !this.#hurried.has(bucket)));
    const { tiles, attention } = this.#chosen;
    const adapters = { ...this.#others, [this.#adapter]: { tiles: kept(tiles), attention: kept(attention) } };
    return JSON.stringify({ version: CACHE_VERSION, adapters }, null, 1);
  }

  async #load(): Promise<void> {
    this.#loaded = true;
    const text = await this.options.cache?.load();
    if (!text) return;
    try {
      const { version, adapters } = JSON.parse(text);
      if (version !== CACHE_VERSION) return;
      this.#others = adapters;
      const { tiles, attention } = adapters[this.#adapter] ?? { tiles: {}, attention: {} };
      for (const [bucket, name] of Object.entries(tiles)) {
        if (name as string in TILES) this.#chosen.tiles[bucket] = name as TileName;
      }
      for (const [bucket, name] of Object.entries(attention)) this.#chosen.attention[bucket] = String(name);
    } catch { /* A damaged cache is as good as none: it is measured again and overwritten. */ }
  }
}

/** Every tile that fits, the guess before the others, since time may be up after it. */
function guessFirst(shape: MatmulShape, limits: LoweringLimits): TileName[] {
  const { tile } = chooseTile(shape, limits), all = tilesFor(limits);
  const guess = all.find((name) => tile !== "lanes" && tileName(TILES[name]) === tileName(tile));
  return guess ? [guess, ...all.filter((name) => name !== guess)] : all;
}

/** Attentions that share a choice. */
function attentionBucket({ backward, images, heads, tokens, queries, width, half }: AttentionShape): string {
  return `${backward ? "backward" : "forward"} ~${
    Math.round(2 * Math.log2(images * heads))
  }×${queries}/${tokens}×${width}${half ? " f16" : ""}`;
}

/** Shapes that share a choice: same operands and what they go through, same n and k, m within a factor of √2. */
function bucketOf({ m, n, k, transA, transB, halves, prologueA, prologueB }: MatmulShape): string {
  const about = Math.round(2 * Math.log2(m));
  // A transposed A is a weight's gradient: there k is the number of rows of a batch.
  const [rows, inner] = transA ? [m, `~${Math.round(2 * Math.log2(k))}`] : [`~${about}`, k];
  const through = `${prologueA ? ` a:${prologueA}` : ""}${prologueB ? ` b:${prologueB}` : ""}`;
  return `${transA ? "T" : "N"}${transB ? "T" : "N"} ${rows}×${n}×${inner}${halves ? ` f16:${halves}` : ""}${through}`;
}

/** The products that together make most of a program's arithmetic, most first, and its attentions, with what they are kept as. */
function importantShapes(program: Program, { limits, precision }: Pick<Tunable, "limits" | "precision">) {
  const { program: stored, halves } = prepareProgram(program, limits, precision);
  const work = new Map<string, { shape: MatmulShape; flops: number }>();
  const attentions = new Map<string, AttentionShape>();
  let all = 0;
  for (const op of stored.ops) {
    if (op.kind === "attention" || op.kind === "attentionBackward") {
      const shape = attentionShape(op, halves);
      attentions.set(attentionBucket(shape), shape);
    }
    if (op.kind !== "matmul") continue;
    const shape = productShape(op, halves);
    const flops = 2 * shape.m * shape.n * shape.k;
    const entry = work.get(bucketOf(shape)) ?? { shape, flops: 0 };
    entry.flops += flops;
    all += flops;
    work.set(bucketOf(shape), entry);
  }
  const sorted = [...work.values()].sort((a, b) => b.flops - a.flops);
  let sum = 0;
  const products = sorted.filter(({ flops }) => {
    const wanted = sum < SHARE * all;
    sum += flops;
    return wanted;
  }).map(({ shape }) => shape);
  return { products, attentions: [...attentions.values()] };
}

function productShape(op: OpOf<"matmul">, halves: ReadonlySet<number>): MatmulShape {
  const { transA, transB, prologueA, prologueB } = op.attrs;
  return { ...matmulExtents(op), transA, transB, halves: halvesOfProduct(op, halves), prologueA, prologueB };
}
