// Nearest neighbours on a device: the database stays there in blocks, each a matrix product and a selection that goes on from the last.

import { type Backend, type Executable, OutOfMemoryError } from "../../../models/graph/backend.ts";
import { matmul } from "../../../models/graph/ops/matmul.ts";
import { type Selected, topK } from "../../../models/graph/ops/neighbours.ts";
import { Program } from "../../../models/graph/program.ts";
import { type Role, size, type Tensor, tensor } from "../../../models/graph/tensor.ts";
import { emptyNeighbours, type Neighbours, type NeighbourSearch, selectNeighbours } from "./knn.ts";

/** How a search is cut into pieces; results do not depend on it. */
export interface SearchSizes {
  /** Queries of a run. */
  readonly queries: number;
  /** Rows of the database in a block. */
  readonly rows: number;
  /** Blocks that are on the device together. */
  readonly blocks: number;
  /** Neighbours from which ranking all similarities on the host is faster than selecting on the device. */
  readonly mostSelected: number;
}

/** 8 MB of similarities: large enough to keep a processor busy, small beside any model. Selecting is one core's work there. */
const PROCESSOR: SearchSizes = { queries: 256, rows: 8192, blocks: 16, mostSelected: 1024 };
/** 134 MB of similarities, and at a width of 384 up to 1 GB of database: a wait for a GPU costs ten milliseconds. */
const GPU: SearchSizes = { queries: 2048, rows: 16384, blocks: 40, mostSelected: 8192 };

/** Rows of the database on the device, and what is computed with them. */
interface Bank {
  readonly k: number;
  readonly queries: Tensor;
  readonly blocks: readonly Tensor[];
  /** Values and indices of the k best, or of the only block all similarities, [queries, rows]. */
  readonly outputs: Selected | { readonly similarities: Tensor };
  readonly executable: Executable;
}

/** Bytes that a search among so many features takes on a backend at most, beside the network that made them. */
export function searchBytes(backend: Pick<Backend, "name">, features: number, dim: number): number {
  const { queries, rows, blocks } = usualSizes(backend);
  return 4 * (Math.min(features, rows * blocks) + queries) * dim + 4 * queries * Math.min(features, rows);
}

/** A search that runs on `backend`, in as little of its memory as it has left. Equal similarities are ordered by row. */
export function deviceSearch(backend: Backend, sizes: Partial<SearchSizes> = {}): NeighbourSearch {
  const cut = { ...usualSizes(backend), ...sizes };
  return async (queries, database, dim, k) => {
    const count = queries.length / dim, size = database.length / dim;
    let blocks = k > cut.mostSelected ? 1 : cut.blocks;
    let found: Neighbours | undefined;
    for (let start = 0; start < size;) {
      const rows = Math.min(cut.rows * blocks, size - start);
      const bank = await loadBank(backend, database.subarray(start * dim, (start + rows) * dim), dim, {
        k: Math.min(k, rows),
        queries: Math.min(cut.queries, count),
        cut,
      }).catch((error) => {
        if (!(error instanceof OutOfMemoryError) || blocks === 1) throw error;
      });
      if (!bank) {
        blocks >>= 1;
        continue;
      }
      try {
        const here = await searchBank(backend, bank, queries, dim);
        for (let i = 0; i < here.indices.length; i++) here.indices[i] += start;
        found = found ? merge(found, here, k) : here;
      } finally {
        freeBank(backend, bank);
      }
      start += rows;
    }
    return found ?? emptyNeighbours(count, 0);
  };
}

/**
 * A search among rows that stay on the device, for queries that come in several calls. `close` frees them.
 *
 * @param queries as many as a call will ask with, or more
 * @throws {RangeError} if more neighbours are asked for than a device selects
 */
export async function openNeighbours(
  backend: Backend,
  database: Float32Array,
  dim: number,
  { k, queries, sizes = {} }: { k: number; queries: number; sizes?: Partial<SearchSizes> },
): Promise<{ search(queries: Float32Array): Promise<Neighbours>; close(): void }> {
  const rows = database.length / dim;
  const cut = { ...usualSizes(backend), blocks: Infinity, ...sizes };
  if (k > cut.mostSelected) throw new RangeError(`neighbours: k = ${k}; a device selects up to ${cut.mostSelected}`);
  const options = { k: Math.min(k, rows), queries: Math.min(cut.queries, queries), cut };
  const bank = await loadBank(backend, database, dim, options);
  return {
    search: (asked) => searchBank(backend, bank, asked, dim),
    close: () => freeBank(backend, bank),
  };
}

function usualSizes(backend: Pick<Backend, "name">): SearchSizes {
  const { adapter } = backend as { adapter?: { readonly fallback: boolean } };
  return adapter && !adapter.fallback ? GPU : PROCESSOR;
}

async function loadBank(
  backend: Backend,
  database: Float32Array,
  dim: number,
  { k, queries: count, cut }: { k: number; queries: number; cut: SearchSizes },
): Promise<Bank> {
  const all = database.length / dim;
  const program = new Program("neighbours");
  const queries = tensor("queries", [count, dim], "input");
  const blocks: Tensor[] = [];
  const block = (rows: number) => {
    const t = tensor("database", [rows, dim], "input");
    blocks.push(t);
    return t;
  };
  /** Compiles, which fails where there is no room and leaves the backend as it was, and then fills the blocks. */
  const load = async () => {
    const executable = await backend.compile(program);
    let start = 0;
    for (const t of blocks) {
      const end = start + size(t);
      backend.write(t, database.subarray(start, end));
      start = end;
    }
    return executable;
  };
  if (k > cut.mostSelected) {
    const similarities = tensor("similarities", [count, all], "output");
    matmul(program, queries, block(all), { transB: true, into: similarities });
    return { k, queries, blocks, outputs: { similarities }, executable: await load() };
  }
  const selection = (role: Role): Selected => ({
    values: tensor("best values", [count, k], role),
    indices: tensor("best indices", [count, k], role, "i32"),
  });
  const outputs = selection("output");
  let earlier: Selected | undefined;
  let first = 0;
  while (first < all) {
    // The first block must hold k rows, so that every later one has a full selection to go on from.
    const rows = Math.min(Math.max(cut.rows, first === 0 ? k : 1), all - first);
    const scores = matmul(program, queries, block(rows), { transB: true });
    const into = first + rows < all ? selection("activation") : outputs;
    earlier = topK(program, scores, k, { earlier, first, into });
    first += rows;
  }
  return { k, queries, blocks, outputs, executable: await load() };
}

function freeBank(backend: Backend, { queries, blocks, outputs, executable }: Bank): void {
  executable.dispose();
  backend.free(queries, ...blocks, ...Object.values(outputs) as Tensor[]);
}

async function searchBank(
  backend: Backend,
  bank: Bank,
  queries: Float32Array,
  dim: number,
): Promise<Neighbours> {
  const { k, outputs } = bank, [chunk] = bank.queries.shape;
  const count = queries.length / dim;
  const found = emptyNeighbours(count, k);
  for (let start = 0; start < count; start += chunk) {
    // The last chunk begins earlier and repeats some queries: one program serves all.
    const from = Math.max(0, Math.min(start, count - chunk));
    backend.write(bank.queries, queries.subarray(from * dim, Math.min(from + chunk, count) * dim));
    const running = bank.executable.run();
    if ("similarities" in outputs) {
      await running;
      const all = await backend.read(outputs.similarities) as Float32Array, rows = all.length / chunk;
      for (let q = 0; q < chunk && from + q < count; q++) {
        selectNeighbours(all.subarray(q * rows, (q + 1) * rows), found, from + q);
      }
      continue;
    }
    const [values, indices] = await Promise.all([backend.read(outputs.values), backend.read(outputs.indices), running]);
    const length = Math.min(chunk, count - from) * k;
    found.similarities.set((values as Float32Array).subarray(0, length), from * k);
    found.indices.set((indices as Int32Array).subarray(0, length), from * k);
  }
  return found;
}

/** The k best of two descending lists for every query; `a` holds the earlier rows and wins ties. */
function merge(a: Neighbours, b: Neighbours, k: number): Neighbours {
  const count = a.indices.length / a.k;
  const best = emptyNeighbours(count, Math.min(k, a.k + b.k));
  for (let q = 0; q < count; q++) {
    let [i, j] = [q * a.k, q * b.k];
    for (let n = 0; n < best.k; n++) {
      const fromA = j === (q + 1) * b.k || i < (q + 1) * a.k && a.similarities[i] >= b.similarities[j];
      const [list, at] = fromA ? [a, i++] as const : [b, j++] as const;
      best.similarities[q * best.k + n] = list.similarities[at];
      best.indices[q * best.k + n] = list.indices[at];
    }
  }
  return best;
}
