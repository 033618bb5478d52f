// Nearest neighbours on a device: a matrix product and a selection for each block of the database, merged on the host.

import type { Backend, Executable } from "../../models/graph/backend.ts";
import { matmul } from "../../models/graph/ops/matmul.ts";
import { topK } from "../../models/graph/ops/neighbours.ts";
import { Program } from "../../models/graph/program.ts";
import { type Tensor, tensor } from "../../models/graph/tensor.ts";
import { emptyNeighbours, type Neighbours, type NeighbourSearch, selectNeighbours } from "./knn.ts";

// 256 × 8192 similarities take 8 MB: large enough to keep a device busy, small beside any model.
const QUERIES = 256;
const ROWS = 8192;

// Selection on a device compares every winner with every other: for whole rankings a heap on the host is faster.
const MOST_SELECTED = 1024;

interface Block {
  readonly k: number;
  readonly queries: Tensor;
  readonly database: Tensor;
  /** Values and indices of the k best, or all similarities, [queries, rows]. */
  readonly outputs: { readonly values: Tensor; readonly indices: Tensor } | { readonly similarities: Tensor };
  readonly executable: Executable;
}

/** A search that runs on `backend`. Equal similarities are ordered by row. */
export function deviceSearch(backend: Backend): NeighbourSearch {
  return async (queries, database, dim, k) => {
    const count = queries.length / dim;
    const size = database.length / dim;
    const chunk = Math.min(QUERIES, count);
    let found: Neighbours | undefined;
    for (let start = 0; start < size; start += ROWS) {
      const rows = Math.min(ROWS, size - start);
      const block = await compileBlock(backend, chunk, rows, dim, Math.min(k, rows));
      backend.write(block.database, database.subarray(start * dim, (start + rows) * dim));
      const here = await searchBlock(backend, block, queries, count, chunk, dim);
      for (let i = 0; i < here.indices.length; i++) here.indices[i] += start;
      found = found ? merge(found, here, k) : here;
      block.executable.dispose();
      backend.free(block.queries, block.database, ...Object.values(block.outputs));
    }
    return found ?? emptyNeighbours(count, 0);
  };
}

async function compileBlock(backend: Backend, chunk: number, rows: number, dim: number, k: number): Promise<Block> {
  const program = new Program("neighbours");
  const queries = tensor("queries", [chunk, dim], "input");
  const database = tensor("database", [rows, dim], "input");
  const onHost = k > MOST_SELECTED;
  const into = onHost ? tensor("similarities", [chunk, rows], "output") : undefined;
  const similarities = matmul(program, queries, database, { transB: true, into });
  const outputs = onHost ? { similarities } : topK(program, similarities, k);
  return { k, queries, database, outputs, executable: await backend.compile(program) };
}

async function searchBlock(
  backend: Backend,
  block: Block,
  queries: Float32Array,
  count: number,
  chunk: number,
  dim: number,
): Promise<Neighbours> {
  const { k, outputs } = block;
  const found = emptyNeighbours(count, k);
  for (let start = 0; start < count; start += chunk) {
    // The last chunk begins earlier and repeats some queries: one program serves all.
    const from = Math.min(start, count - chunk);
    backend.write(block.queries, queries.subarray(from * dim, (from + chunk) * dim));
    await block.executable.run();
    if ("similarities" in outputs) {
      const all = await backend.read(outputs.similarities) as Float32Array;
      const rows = all.length / chunk;
      for (let q = 0; q < chunk; q++) selectNeighbours(all.subarray(q * rows, (q + 1) * rows), found, from + q);
      continue;
    }
    found.similarities.set(await backend.read(outputs.values) as Float32Array, from * k);
    found.indices.set(await backend.read(outputs.indices) as Int32Array, from * k);
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
