// The ground truth of Revisited Oxford and Paris, from its published pickle or from JSON of the same structure.

import { type Buildable, type PickleGlobal, PickleTuple, unpickle } from "../../../models/weights/pickle.ts";
import { plainGlobals } from "../../../models/weights/plain_globals.ts";
import type { RetrievalTruth } from "./retrieval.ts";

/** Names without extension, and for each query what is right and wrong. */
export interface RetrievalGroundTruth {
  /** The database. */
  readonly images: readonly string[];
  /** What is searched with. */
  readonly queries: readonly string[];
  /** Of each query. */
  readonly truths: readonly RetrievalTruth[];
  /** Box of each query's object: left, top, right, bottom in pixels; absent where the file has none. */
  readonly boxes?: readonly (readonly number[])[];
}

/**
 * Reads a ground truth: `imlist`, `qimlist`, and `gnd` with `easy`, `hard`, `junk` and perhaps `bbx` for each query.
 *
 * @param name for messages
 * @throws {SyntaxError} if it is not that, or the pickle is damaged
 * @throws {TypeError} if the pickle asks for anything but plain data
 */
export function parseGroundTruth(bytes: Uint8Array, name: string): RetrievalGroundTruth {
  const json = bytes[0] === 0x7b; // {
  let value: unknown;
  try {
    value = json ? JSON.parse(new TextDecoder().decode(bytes)) : unpickle(bytes, { globals: globals() }).value;
  } catch (error) {
    if (error instanceof TypeError) throw error;
    throw new SyntaxError(`${name}: no ground truth: ${(error as Error).message}`);
  }
  const field = (from: unknown, key: string) =>
    from instanceof Map ? from.get(key) : (from as Record<string, unknown> | null)?.[key];
  const fail = (what: string): never => {
    throw new SyntaxError(`${name}: no ground truth: ${what}`);
  };
  const strings = (key: string) => {
    const found = listOf(field(value, key));
    if (!found?.length || found.some((each) => typeof each !== "string")) fail(`${key} is no list of names`);
    return found as string[];
  };
  const images = strings("imlist"), queries = strings("qimlist");
  const gnd = listOf(field(value, "gnd"));
  if (gnd?.length !== queries.length) {
    fail(`gnd describes ${gnd?.length ?? "no"} queries, qimlist names ${queries.length}`);
  }
  const rows = (entry: unknown, key: string, query: number) => {
    const found = listOf(field(entry, key)) ?? [];
    for (const row of found) {
      if (!(Number.isInteger(row) && (row as number) >= 0 && (row as number) < images.length)) {
        fail(`query ${query}: ${key} names image ${row} of ${images.length}`);
      }
    }
    return found as number[];
  };
  const truths = gnd!.map((entry, q) => ({
    easy: rows(entry, "easy", q),
    hard: rows(entry, "hard", q),
    junk: rows(entry, "junk", q),
  }));
  const boxes = gnd!.map((entry) => listOf(field(entry, "bbx")) as number[] | undefined);
  return { images, queries, truths, ...boxes.every((b) => b?.length === 4) ? { boxes: boxes as number[][] } : {} };
}

function listOf(value: unknown): unknown[] | undefined {
  if (Array.isArray(value)) return value;
  if (value instanceof PickleTuple) return [...value.items];
  if (value instanceof NumpyArray) return value.items;
}

/** A one-dimensional numpy array of numbers. */
class NumpyArray implements Buildable {
  items: unknown[] = [];

  buildFromPickle(state: unknown): void {
    const [, , type, , raw] = state instanceof PickleTuple ? state.items : [];
    const { code, scalar } = (type ?? {}) as { code?: string; scalar?: (bytes: Uint8Array) => { value: unknown } };
    const bytes = typeof raw === "string" ? Uint8Array.from(raw, (c) => c.charCodeAt(0)) : raw;
    if (typeof code !== "string" || !scalar || !(bytes instanceof Uint8Array)) {
      throw new SyntaxError("a numpy array of what are no numbers");
    }
    const width = Number(code.slice(1));
    this.items = Array.from(
      { length: Math.floor(bytes.length / width) },
      (_, i) => scalar.call(type, bytes.slice(i * width, (i + 1) * width)).value,
    );
  }
}

function globals(): Map<string, PickleGlobal> {
  const all = [
    ...plainGlobals(),
    { name: "numpy.ndarray" },
    { name: "numpy.core.multiarray._reconstruct", call: () => new NumpyArray() },
    { name: "numpy._core.multiarray._reconstruct", call: () => new NumpyArray() },
  ];
  return new Map(all.map((each) => [each.name, each]));
}
