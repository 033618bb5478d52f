// Times a few tile shapes for the products that matter in a program, checks each numerically, remembers the fastest.
import { matmul, matmulExtents } from "../models/graph/ops/matmul.ts";
import { Program } from "../models/graph/program.ts";
import { size, type Tensor, tensor, view } from "../models/graph/tensor.ts";
import type { WebGpuBackend } from "./backend.ts";
import {
  attentionCandidates,
  attentionChoiceOf,
  type AttentionChooser,
  type AttentionShape,
  guessAttention,
} from "./attention_choice.ts";
import { attentionShape } from "./ops/attention.ts";
import { type AttentionTuning, compareAttention } from "./tune_attention.ts";
import { chooseTile, splitsFor, tileBytes, type TileName, TILES } from "./kernels/matmul_tiles.ts";
import type { LoweringLimits, MatmulChooser, MatmulShape } from "./lowering.ts";

/** Where choices are kept between runs. The library writes no files: who owns a cache folder hands this in. */
export interface TuningCache {
  /** What `save` was last given, if anything. */
  load(): Promise<string | undefined>;
  /** Keeps the text for the next `load`. */
  /** Keeps `text` for the next run. */
  save(text: string): Promise<void>;
}

/** How long and what to tune. */
export interface TuningOptions {
  /** Remembers choices between runs. */
  readonly cache?: TuningCache;
  /** Stop looking after this many seconds; what was not reached keeps the guess. */
  readonly seconds?: number;
  /** Tiles to compare. */
  readonly tiles?: readonly TileName[];
}

/** What one comparison found. */
export interface TuningResult {
  /** The product. */
  readonly shape: MatmulShape;
  /** The fastest tile. */
  readonly chosen: TileName;
  /** Microseconds of each tile that gave right results. */
  readonly micros: Readonly<Partial<Record<TileName, number>>>;
  /** Tiles whose results were wrong on this driver. */
  readonly wrong: readonly TileName[];
}

/** Raise it when kernels change enough for old timings to mislead. */
const CACHE_VERSION = 2;
/** Products that together make this share of a program's arithmetic are tuned. */
const SHARE = 0.97;
/** Bytes beyond which an operand is cut along the batch: enough workgroups remain for the timing to hold. */
export const LARGEST_OPERAND = 2 ** 26;
const REPEATS = 3;

/**
 * Chooses tiles and attention's kernels by timing. Neither changes the bits of a result (see `splitsFor` and `attention_choice.ts`), so
 * tuning does not either.
 */
export class Tuner {
  readonly results: TuningResult[] = [];
  readonly attention: AttentionTuning[] = [];
  readonly #chosen = new Map<string, TileName>();
  readonly #attentions = new Map<string, string>();
  #loaded = false;
  #secondsLeft: number;

  constructor(readonly backend: WebGpuBackend, readonly options: TuningOptions = {}) {
    this.#secondsLeft = options.seconds ?? 8;
  }

  /** Time that comparing has taken. */
  get seconds(): number {
    return (this.options.seconds ?? 8) - this.#secondsLeft;
  }

  /** The tuned tile of a shape's bucket, or the guess. */
  readonly choose: MatmulChooser = (shape, limits) => {
    const name = this.#chosen.get(bucketOf(shape));
    if (!name || tileBytes(TILES[name]) > limits.workgroupBytes) return chooseTile(shape, limits);
    return { tile: TILES[name], splits: splitsFor(shape) };
  };

  /** The tuned kernels of an attention, or the guess. */
  readonly chooseAttention: AttentionChooser = (shape, limits) => {
    const name = this.#attentions.get(attentionBucket(shape));
    return name && attentionChoiceOf(name, shape, limits) || guessAttention(shape, limits);
  };

  /** Tunes what is not known yet, products by most arithmetic, then attention, until the time is used up. */
  async prepare(program: Program): Promise<void> {
    if (!this.#loaded) await this.#load();
    const before = this.#chosen.size + this.#attentions.size;
    for (const shape of importantShapes(program)) {
      if (this.#secondsLeft <= 0) break;
      if (this.#chosen.has(bucketOf(shape))) continue;
      const start = performance.now();
      const result = await compareTiles(this.backend, shape, this.options.tiles ?? tilesFor(this.backend.limits));
      this.#secondsLeft -= (performance.now() - start) / 1000;
      this.results.push(result);
      this.#chosen.set(bucketOf(shape), result.chosen);
    }
    for (const op of program.ops) {
      if (op.kind !== "attention" && op.kind !== "attentionBackward") continue;
      const shape = attentionShape(op);
      if (this.#secondsLeft <= 0 || this.#attentions.has(attentionBucket(shape))) continue;
      const start = performance.now();
      const candidates = attentionCandidates(shape, this.backend.limits);
      const result = await compareAttention(this.backend, shape, candidates);
      this.#secondsLeft -= (performance.now() - start) / 1000;
      this.attention.push(result);
      this.#attentions.set(attentionBucket(shape), result.chosen);
    }
    if (this.#chosen.size + this.#attentions.size > before) await this.options.cache?.save(this.#text());
  }

  #text(): string {
    const { description: adapter } = this.backend;
    const tiles = Object.fromEntries(this.#chosen), attention = Object.fromEntries(this.#attentions);
    return JSON.stringify({ version: CACHE_VERSION, adapter, tiles, attention }, null, 1);
  }

  async #load(): Promise<void> {
    this.#loaded = true;
    const text = await this.options.cache?.load();
    if (!text) return;
    try {
      const { version, adapter, tiles, attention } = JSON.parse(text);
      if (version !== CACHE_VERSION || adapter !== this.backend.description) return;
      for (const [bucket, name] of Object.entries(tiles)) {
        if (name as string in TILES) this.#chosen.set(bucket, name as TileName);
      }
      for (const [bucket, name] of Object.entries(attention)) this.#attentions.set(bucket, String(name));
    } catch { /* A damaged cache is as good as none: it is measured again and overwritten. */ }
  }
}

/** Attentions that share a choice. */
function attentionBucket({ backward, images, heads, tokens, queries, width }: AttentionShape): string {
  return `${backward ? "backward" : "forward"} ~${
    Math.round(2 * Math.log2(images * heads))
  }×${queries}/${tokens}×${width}`;
}

/** Shapes that share a choice: same operands, same n and k, m within a factor of √2. */
function bucketOf({ m, n, k, transA, transB }: MatmulShape): string {
  const about = Math.round(2 * Math.log2(m));
  // A transposed A is a weight's gradient: there k is the number of rows of a batch.
  const [rows, inner] = transA ? [m, `~${Math.round(2 * Math.log2(k))}`] : [`~${about}`, k];
  return `${transA ? "T" : "N"}${transB ? "T" : "N"} ${rows}×${n}×${inner}`;
}

function importantShapes(program: Program): MatmulShape[] {
  const work = new Map<string, { shape: MatmulShape; flops: number }>();
  let all = 0;
  for (const op of program.ops) {
    if (op.kind !== "matmul") continue;
    const shape = { ...matmulExtents(op), transA: op.attrs.transA, transB: op.attrs.transB };
    const flops = 2 * shape.m * shape.n * shape.k;
    const entry = work.get(bucketOf(shape)) ?? { shape, flops: 0 };
    entry.flops += flops;
    all += flops;
    work.set(bucketOf(shape), entry);
  }
  const sorted = [...work.values()].sort((a, b) => b.flops - a.flops);
  let sum = 0;
  return sorted.filter(({ flops }) => {
    const wanted = sum < SHARE * all;
    sum += flops;
    return wanted;
  }).map(({ shape }) => shape);
}

/** Tiles whose staging fits the device. */
export function tilesFor({ workgroupBytes }: LoweringLimits): TileName[] {
  return (Object.keys(TILES) as TileName[]).filter((name) => tileBytes(TILES[name]) <= workgroupBytes);
}

/** Times each tile on one shape. A tile whose results are off anywhere looked at may not win. */
export async function compareTiles(
  backend: WebGpuBackend,
  shape: MatmulShape,
  tiles: readonly TileName[],
): Promise<TuningResult> {
  const { m, n, k, transA, transB } = cutToBudget(shape);
  const a = tensor("tuning a", transA ? [k, m] : [m, k], "input"),
    b = tensor("tuning b", transB ? [n, k] : [k, n], "input");
  const c = tensor("tuning c", [m, n], "output");
  fillForTuning(backend, a, 1);
  fillForTuning(backend, b, 2);
  const micros: Partial<Record<TileName, number>> = {};
  const wrong: TileName[] = [];
  for (const name of tiles) {
    const program = new Program(`tuning ${name}`);
    matmul(program, a, b, { transA, transB, into: c });
    const splits = splitsFor({ m, n, k, transA, transB });
    const executable = await backend.compileWith(program, () => ({ tile: TILES[name], splits })).catch(() => undefined);
    if (!executable) {
      backend.check(); // a lost device is lost for all
      wrong.push(name); // a driver that cannot build a kernel has others
      continue;
    }
    await executable.run();
    if (await agrees(backend, { m, n, k, transA, transB }, c)) micros[name] = await timeOf(backend, executable);
    else wrong.push(name);
    executable.dispose();
  }
  backend.free(a, b, c);
  const ranked = (Object.entries(micros) as [TileName, number][]).sort(([, x], [, y]) => x - y);
  if (ranked.length === 0) {
    throw new Error(
      `webgpu: every tile of a ${m}×${n}×${k} product is wrong on ${backend.description}: update the driver, or use the SIMD backend`,
    );
  }
  return { shape, chosen: ranked[0][0], micros, wrong };
}

function cutToBudget(shape: MatmulShape): MatmulShape {
  const { m, n, k, transA } = shape;
  const rows = (width: number) => Math.max(1, Math.floor(LARGEST_OPERAND / 4 / width));
  return transA
    ? { ...shape, k: Math.min(k, rows(Math.max(m, n))) }
    : { ...shape, m: Math.min(m, rows(Math.max(n, k))) };
}

/** Values repeat after this many elements, so that filling a large operand is a series of copies. */
const PERIOD = 2 ** 20 - 3;

/** The element at index i of an operand: pseudo-random in (−1, 1), the same on every machine. */
export function tuningValue(i: number, seed: number): number {
  const x = Math.imul((i % PERIOD) + 1, 2654435761 * seed | 1);
  return ((Math.imul(x ^ (x >>> 15), 2246822519) >>> 8) / 2 ** 23) - 1;
}

/** Fills an operand with {@link tuningValue}. */
export function fillForTuning(backend: WebGpuBackend, t: Tensor, seed: number): void {
  const block = Float32Array.from({ length: Math.min(PERIOD, size(t)) }, (_, i) => tuningValue(i, seed));
  for (let at = 0; at < size(t); at += PERIOD) backend.write(t, block.subarray(0, Math.min(PERIOD, size(t) - at)), at);
}

/** Elements compared in each place that is looked at; a place costs a wait of 10 ms. */
const SAMPLE = 96;

/** Compares parts of c, at its first row, its middle and its last row, with float64 sums. */
async function agrees(backend: WebGpuBackend, { m, n, k, transA, transB }: MatmulShape, c: Tensor): Promise<boolean> {
  const tolerance = 8 * Math.sqrt(k) * 2 ** -23; // of sums of k products below 1, each rounded
  const last = Math.max(0, m * n - SAMPLE);
  for (const place of [0, 0.5, 1]) {
    // Views start at multiples of 64 elements.
    const start = Math.floor(last * place / 64) * 64, length = Math.min(SAMPLE + 64, m * n - start);
    const got = await backend.read(view(c, "sample", [length], start));
    for (let i = 0; i < length; i += 3) {
      const row = Math.floor((start + i) / n), column = (start + i) % n;
      let sum = 0;
      for (let l = 0; l < k; l++) {
        sum += tuningValue(transA ? l * m + row : row * k + l, 1) *
          tuningValue(transB ? column * k + l : l * n + column, 2);
      }
      if (!(Math.abs(got[i] - sum) <= tolerance)) return false;
    }
  }
  return true;
}

/** Microseconds of one run: the device's clock where it has one, else the host's over enough runs to see. */
export async function timeOf(
  backend: WebGpuBackend,
  executable: Awaited<ReturnType<WebGpuBackend["compileWith"]>>,
): Promise<number> {
  let best = Infinity;
  for (let i = 0; i < REPEATS; i++) {
    if (executable.profile) {
      best = Math.min(best, (await executable.profile())[0]);
      continue;
    }
    await backend.finish();
    const start = performance.now();
    let runs = 0;
    do {
      for (let j = 0; j < 8; j++) void executable.run();
      runs += 8;
      await backend.finish();
    } while (performance.now() - start < 60); // a wait is only good to 10 ms
    best = Math.min(best, 1000 * (performance.now() - start) / runs);
  }
  return best;
}
