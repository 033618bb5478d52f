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
/** Wide tiles need 256-bit registers to beat narrow ones by this much. */
const TURBO_RATIO = 1.4;

let measured: Promise<Calibration> | undefined;

/** Times the micro-kernels of `exports` on `address`, 128 KiB of scratch in their memory; later calls return the same. */
export function calibrate(exports: WebAssembly.Exports, address: number): Promise<Calibration> {
  return measured ??= measure(exports, address);
}

async function measure(exports: WebAssembly.Exports, address: number): Promise<Calibration> {
  const seconds = TILE_SHAPES.map(() => Infinity);
  const calls = TILE_SHAPES.map(({ rows, columns }) => {
    const kernel = exports[`rows${rows}x${columns}`] as (...args: number[]) => void;
    const a = address, b = a + 0x8000, zeros = b + 0x8000, c = zeros + 0x1000;
    return () => kernel(TILES, DEPTH, a, DEPTH * 4, 0, b, columns * 4, zeros, 0, zeros, c, columns * 4);
  });
  // The optimising compiler works in the background: give it time, and believe the best of many short bursts.
  for (let turn = 0; turn < 24; turn++) {
    calls.forEach((call, i) => {
      for (let burst = 0; burst < 6; burst++) {
        const start = performance.now();
        for (let repeat = 0; repeat < 4; repeat++) call();
        seconds[i] = Math.min(seconds[i], (performance.now() - start) / 4e3);
      }
    });
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  const gflops = TILE_SHAPES.map(({ rows, columns }, i) => 2 * rows * columns * TILES * DEPTH / seconds[i] / 1e9);
  const rate = (rows: number, columns: number) =>
    gflops[TILE_SHAPES.findIndex((t) => t.rows === rows && t.columns === columns)];
  const turbo = rate(4, 16) > TURBO_RATIO * rate(4, 8);
  const best = gflops.indexOf(Math.max(...gflops.filter((_, i) => !turbo || TILE_SHAPES[i].columns === 16)));
  return { tile: TILE_SHAPES[best], mode: turbo ? "turbo" : "stock", gflops: gflops[best] };
}
