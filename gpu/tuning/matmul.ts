// Times the tiles that a product can be cut into, checks each numerically, and tells the fastest.
import type { MatmulOp, Prologue } from "../../models/graph/ops/matmul.ts";
import type { Tensor } from "../../models/graph/tensor.ts";
import { gelu } from "../../models/graph/ops/special.ts";
import { Program } from "../../models/graph/program.ts";
import { type MatmulShape, splitsFor, tileBytes, type TileName, TILES } from "../kernels/matmul_tiles.ts";
import type { LoweringLimits } from "../limits.ts";
import { compareKernels } from "./compare.ts";
import { LARGEST_OPERAND, type TuningOperand, type TuningOperands, tuningValue } from "./operands.ts";

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
  const { prologueA, prologueB } = shape;
  const [aRows, aWeight, aBias] = prologueOperands(operands, "a", prologueA, a);
  const [bRows, bWeight, bBias] = prologueOperands(operands, "b", prologueB, b);
  const splits = splitsFor(whole), truths = truthsOf(shape);
  const comparison = await compareKernels(operands, tiles, {
    what: `every tile of a ${m}×${n}×${k} product`,
    compile: (name) => {
      const program = new Program(`tuning ${name}`);
      program.emit<MatmulOp>({
        kind: "matmul",
        in: { a: a.tensor, b: b.tensor, aRows, aWeight, aBias, bRows, bWeight, bBias },
        out: { c: c.tensor },
        attrs: { transA, transB, epilogue: "none", accumulate: false, prologueA, prologueB },
      });
      const choose = () => ({ tile: TILES[name], splits });
      return backend.compileWith(program, { matmul: choose, kept: operands.halvesOf(a, b, c) });
    },
    spoil: () => samplesOf(shape).forEach(([start, length]) => operands.spoil(c, start, length)),
    isRight: () => agrees(operands, shape, c, truths),
  }, until);
  return { shape: whole, ...comparison };
}

/** Seeds of what an operand's prologue takes, by the operand's own. */
const SEEDS = { a: 10, b: 20 };

/** What a prologue takes besides the operand: a factor a row, or statistics of rows and weights and biases of columns. */
function prologueOperands(
  operands: TuningOperands,
  slot: "a" | "b",
  kind: Prologue | undefined,
  { tensor: { shape: [rows, columns] } }: TuningOperand,
): Tensor[] {
  const shapes = kind === "scaleRows" ? [[rows]] : kind === "layerNorm" ? [[rows, 2], [columns], [columns]] : [];
  return shapes.map((shape, i) => operands.of(`${slot} ${i}`, shape, { seed: SEEDS[slot] + i }).tensor);
}

/** Element (r, c) of a stored operand after its prologue. */
function operandValue(
  slot: "a" | "b",
  kind: Prologue | undefined,
  r: number,
  c: number,
  columns: number,
  half: boolean,
) {
  const x = tuningValue(r * columns + c, slot === "a" ? 1 : 2, half), seed = SEEDS[slot];
  if (kind === "gelu") return gelu(x);
  if (kind === "scaleRows") return tuningValue(r, seed) * x;
  if (kind !== "layerNorm") return x;
  return (x - tuningValue(2 * r, seed)) * tuningValue(2 * r + 1, seed) * tuningValue(c, seed + 1) +
    tuningValue(c, seed + 2);
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
  truths: ReadonlyMap<number, number>,
): Promise<boolean> {
  const { k, prologueA, prologueB } = shape;
  // Of sums of k products below 1, or below 3 where an operand goes through a norm, each rounded.
  const tolerance = (prologueA || prologueB ? 24 : 8) * Math.sqrt(k) * 2 ** -23;
  const rounding = c.half ? 2 ** -10 : 0; // a result in halves, which a driver may truncate
  for (const [start, length] of samplesOf(shape)) {
    const got = await operands.read(c, start, length);
    for (let i = 0; i < length; i++) {
      const sum = truths.get(start + i);
      if (sum !== undefined && !(Math.abs(got[i] - sum) <= tolerance + rounding * Math.abs(sum))) return false;
    }
  }
  return true;
}

/** Elements of c in float64, by their index: some of each place that is looked at, fewer where sums are long. */
function truthsOf(shape: MatmulShape): Map<number, number> {
  const { m, n, k, transA, transB, halves = "", prologueA, prologueB } = shape;
  const [halfA, halfB] = ["a", "b"].map((slot) => halves.includes(slot));
  const truths = new Map<number, number>();
  for (const [start, length] of samplesOf(shape)) {
    for (let i = 0; i < length; i += k > 4096 ? 9 : 3) {
      const row = Math.floor((start + i) / n), column = (start + i) % n;
      let sum = 0;
      for (let l = 0; l < k; l++) {
        const a = transA
          ? operandValue("a", prologueA, l, row, m, halfA)
          : operandValue("a", prologueA, row, l, k, halfA);
        const b = transB
          ? operandValue("b", prologueB, column, l, k, halfB)
          : operandValue("b", prologueB, l, column, n, halfB);
        sum += a * b;
      }
      truths.set(start + i, sum);
    }
  }
  return truths;
}
