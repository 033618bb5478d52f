// Times kernels that compute the same, one after another, checks each numerically, and tells the fastest.
import { type Executable, OutOfMemoryError } from "../../models/graph/backend.ts";
import type { TuningOperands } from "./operands.ts";
import type { Tunable } from "./tunable.ts";

/** What one comparison of kernels found. */
export interface Comparison<Name extends string> {
  /** The fastest. */
  readonly chosen: Name;
  /** Microseconds of each that gave right results. */
  readonly micros: Readonly<Record<string, number>>;
  /** Those whose results were wrong on this driver, or which it could not build. */
  readonly wrong: readonly Name[];
  /** Whether time was up before all were looked at. */
  readonly unfinished: boolean;
}

/** What is compared. */
export interface Contest<Name extends string> {
  /** For the message if none is right: `every tile of …`. */
  readonly what: string;
  /** Builds the program with the kernel of a name. */
  compile(name: Name): Promise<Executable>;
  /** Overwrites the results that are looked at, so that a kernel which writes nothing does not pass for the one before it. */
  spoil(): void;
  /** Looks at the results of a run. */
  isRight(): Promise<boolean>;
}

const REPEATS = 3;

/**
 * Times each kernel on the same operands. One whose results are off anywhere looked at may not win.
 *
 * @param until when to look at no further kernel, by `performance.now()`; one that is right is looked for in any case
 * @throws {OutOfMemoryError} if the device has no room for the operands
 * @throws {Error} if none computes rightly
 */
export async function compareKernels<Name extends string>(
  operands: TuningOperands,
  names: readonly Name[],
  { what, compile, spoil, isRight }: Contest<Name>,
  until: number,
): Promise<Comparison<Name>> {
  const { backend } = operands;
  const micros = new Map<Name, number>(), wrong: Name[] = [];
  let unfinished = false;
  for (const name of names) {
    unfinished = performance.now() > until && micros.size > 0;
    if (unfinished) break;
    const executable = await compile(name).catch(whateverTheDriver);
    if (!executable) {
      backend.check(); // a lost device is lost for all
      wrong.push(name); // a driver that cannot build a kernel has others
      continue;
    }
    operands.fill();
    spoil();
    await executable.run();
    if (await isRight()) micros.set(name, await timeOf(backend, executable));
    else wrong.push(name);
    executable.dispose();
  }
  const ranked = [...micros].sort(([, x], [, y]) => x - y);
  if (ranked.length === 0) {
    throw new Error(
      `webgpu: ${what} is wrong on ${backend.description}: update the driver, or use the SIMD backend`,
    );
  }
  return { chosen: ranked[0][0], micros: Object.fromEntries(micros), wrong, unfinished };
}

/** Nothing, if a driver could not build a kernel; a lack of room is no fault of the kernel. */
function whateverTheDriver(error: unknown): undefined {
  if (error instanceof OutOfMemoryError) throw error;
}

/** Microseconds of one run: the device's clock where it has one, else the host's over enough runs to see. */
async function timeOf(backend: Tunable, executable: Executable): Promise<number> {
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
