// Finds the fastest register tile, and with it whether V8 runs the kernels at full width, by timing them once a process.
import { TILE_SHAPES, type TileShape } from "./micro_kernels.ts";

/** What timing showed. */
export interface Calibration {
  readonly tile: TileShape;
  /** "turbo": 256-bit arithmetic without bounds checks; "stock": as V8 comes. */
  readonly mode: "turbo" | "stock";
  /** Billions of float32 operations a second of one thread with its operands in L1. */
  readonly gflops: number;
}

/** k of the timed products: what panels of real products have. */
const DEPTH = 256;
/** Blocks of rows a call computes. */
const TILES = 4;
/**
 * The widest tile against the narrowest: 1.5–1.9 with 256-bit arithmetic and no bounds checks, 0.5–0.75 as V8 comes, where it has
 * more accumulators than there are registers, and 0.4–0.6 without checks alone, on a busy machine as well as on an idle one (Zen 3).
 */
const TURBO_RATIO = 1.05;
/** Only there V8 widens; processors with more registers of 128 bits would like the widest tile anyway. */
const CAN_WIDEN = Deno.build.arch === "x86_64";
/** A taller tile reads less of b and ends less often, which pays in real products unless it is this much slower in L1. */
const TALL_RATIO = 0.97;
/** Turns of timing; the first half only lets the optimising compiler, which works in the background, finish. */
const TURNS = 30;

let measured: Promise<Calibration> | undefined;

/**
 * Times the micro-kernels of `exports` on `address`, 128 KiB of scratch in their memory; later calls return the same.
 *
 * @param known mode of the process; without it, told from the timings, which a very busy machine can blur
 */
export function calibrate(
  exports: WebAssembly.Exports,
  address: number,
  known?: Calibration["mode"],
): Promise<Calibration> {
  return measured ??= measure(exports, address, known);
}

async function measure(
  exports: WebAssembly.Exports,
  address: number,
  known?: Calibration["mode"],
): Promise<Calibration> {
  const kernels = TILE_SHAPES.map(({ rows, columns }) => {
    const kernel = exports[`tile${rows}x${columns}`] as (...args: number[]) => void;
    const a = address, b = a + 0x8000, zeros = b + 0x8000, c = zeros + 0x1000, tile = rows * DEPTH * 4;
    return () => kernel(TILES, DEPTH, a, tile, b, zeros, 0, zeros, c, columns * 4);
  });
  const turns: number[][] = [];
  for (let turn = 0; turn < TURNS; turn++) {
    turns.push(TILE_SHAPES.map(({ rows, columns }, i) => {
      let seconds = Infinity;
      for (let burst = 0; burst < 6; burst++) {
        const start = performance.now();
        for (let repeat = 0; repeat < 4; repeat++) kernels[i]();
        seconds = Math.min(seconds, (performance.now() - start) / 4e3);
      }
      return 2 * rows * columns * TILES * DEPTH / seconds / 1e9;
    }));
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  // Other programs slow all kernels of a turn alike: compare within a turn, and take the middle of the comparisons.
  const late = turns.slice(TURNS / 2);
  const indexOf = (rows: number, columns: number) =>
    TILE_SHAPES.findIndex((t) => t.rows === rows && t.columns === columns);
  const ratio = (a: number, b: number) => median(late.map((gflops) => gflops[a] / gflops[b]));
  const turbo = known ? known === "turbo" : CAN_WIDEN && ratio(indexOf(6, 16), indexOf(4, 8)) > TURBO_RATIO;
  let best = turbo ? indexOf(4, 16) : indexOf(4, 8);
  TILE_SHAPES.forEach(({ rows, columns }, i) => {
    const taller = turbo && columns === 16 && rows > TILE_SHAPES[best].rows;
    if (taller ? ratio(i, best) > TALL_RATIO : ratio(i, best) > 1.05) best = i;
  });
  const gflops = Math.max(...late.map((rates) => rates[best]));
  return { tile: TILE_SHAPES[best], mode: turbo ? "turbo" : "stock", gflops };
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1];
}
