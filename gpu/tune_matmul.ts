// Times the tiles that a product can be cut into, checks each numerically, and tells the fastest.
import { OutOfMemoryError } from "../models/graph/backend.ts";
import { matmul } from "../models/graph/ops/matmul.ts";
import { Program } from "../models/graph/program.ts";
import type { WebGpuBackend } from "./backend.ts";
import { splitsFor, tileBytes, type TileName, TILES } from "./kernels/matmul_tiles.ts";
import type { LoweringLimits, MatmulShape } from "./lowering.ts";
import { LARGEST_OPERAND, type TuningOperand, type TuningOperands, tuningValue } from "./tuning_operands.ts";

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
  /** Whether time was up before every tile was looked at. */
  readonly unfinished: boolean;
}

const REPEATS = 3;

/** Tiles whose staging fits the device. */
export function tilesFor({ workgroupBytes }: LoweringLimits): TileName[] {
  return (Object.keys(TILES) as TileName[]).filter((name) => tileBytes(TILES[name]) <= workgroupBytes);
}

/**
 * Times each tile on one shape, of the type that its operands are kept as. A tile whose results are off anywhere looked at may
 * not win.
 *
 * @param until when to look at no further tile, by `performance.now()`; one that is right is looked for in any case
 * @throws {OutOfMemoryError} if the device has no room for the operands
 */
export async function compareTiles(
  operands: TuningOperands,
  whole: MatmulShape,
  tiles: readonly TileName[],
  until = Infinity,
): Promise<TuningResult> {
  const { backend } = operands;
  const shape = cutToBudget(whole), { m, n, k, transA, transB, halves = "" } = shape;
  const operand = (slot: string, rows: number, columns: number, seed?: number) =>
    operands.of(slot, [rows, columns], { half: halves.includes(slot), seed });
  const a = transA ? operand("a", k, m, 1) : operand("a", m, k, 1);
  const b = transB ? operand("b", n, k, 2) : operand("b", k, n, 2), c = operand("c", m, n);
  const splits = splitsFor(whole);
  const micros: Partial<Record<TileName, number>> = {};
  const wrong: TileName[] = [];
  let unfinished = false;
  for (const name of tiles) {
    unfinished = performance.now() > until && Object.keys(micros).length > 0;
    if (unfinished) break;
    const program = new Program(`tuning ${name}`);
    matmul(program, a.tensor, b.tensor, { transA, transB, into: c.tensor });
    const choose = () => ({ tile: TILES[name], splits });
    const compiling = backend.compileWith(program, { matmul: choose, kept: operands.halvesOf(a, b, c) });
    const executable = await compiling.catch(whateverTheDriver);
    if (!executable) {
      backend.check(); // a lost device is lost for all
      wrong.push(name); // a driver that cannot build a kernel has others
      continue;
    }
    operands.fill();
    for (const [start, length] of samplesOf(shape)) operands.spoil(c, start, length);
    await executable.run();
    if (await agrees(operands, shape, c)) micros[name] = await timeOf(backend, executable);
    else wrong.push(name);
    executable.dispose();
  }
  const ranked = (Object.entries(micros) as [TileName, number][]).sort(([, x], [, y]) => x - y);
  if (ranked.length === 0) {
    throw new Error(
      `webgpu: every tile of a ${m}×${n}×${k} product is wrong on ${backend.description}: update the driver, or use the SIMD backend`,
    );
  }
  return { shape: whole, chosen: ranked[0][0], micros, wrong, unfinished };
}

/** Nothing, if a driver could not build a kernel; a lack of room is no fault of the kernel. */
export function whateverTheDriver(error: unknown): undefined {
  if (error instanceof OutOfMemoryError) throw error;
}

function cutToBudget(shape: MatmulShape): MatmulShape {
  const { m, n, k, transA } = shape;
  const rows = (width: number) => Math.max(1, Math.floor(LARGEST_OPERAND / 4 / width));
  return transA
    ? { ...shape, k: Math.min(k, rows(Math.max(m, n))) }
    : { ...shape, m: Math.min(m, rows(Math.max(n, k))) };
}

/** Elements compared in each place that is looked at; a place costs a wait of 10 ms. */
const SAMPLE = 96;

/** Elements of c that are looked at, start and length: in its first row, its middle and its last row. */
function samplesOf({ m, n }: MatmulShape): (readonly [start: number, length: number])[] {
  const last = Math.max(0, m * n - SAMPLE);
  return [0, 0.5, 1].map((place) => {
    const start = Math.floor(last * place / 128) * 128; // views start at multiples of 64 floats
    return [start, Math.min(SAMPLE + 128, m * n - start)];
  });
}

/** Compares samples of c with float64 sums. */
async function agrees(
  operands: TuningOperands,
  shape: MatmulShape,
  c: TuningOperand,
): Promise<boolean> {
  const { m, n, k, transA, transB, halves = "" } = shape;
  const [halfA, halfB] = ["a", "b"].map((slot) => halves.includes(slot));
  const tolerance = 8 * Math.sqrt(k) * 2 ** -23; // of sums of k products below 1, each rounded
  const rounding = c.half ? 2 ** -10 : 0; // a result in halves, which a driver may truncate
  for (const [start, length] of samplesOf(shape)) {
    const got = await operands.read(c, start, length);
    for (let i = 0; i < length; i += 3) {
      const row = Math.floor((start + i) / n), column = (start + i) % n;
      let sum = 0;
      for (let l = 0; l < k; l++) {
        sum += tuningValue(transA ? l * m + row : row * k + l, 1, halfA) *
          tuningValue(transB ? column * k + l : l * n + column, 2, halfB);
      }
      if (!(Math.abs(got[i] - sum) <= tolerance + rounding * Math.abs(sum))) return false;
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
