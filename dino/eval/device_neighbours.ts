// Nearest neighbours on a device: a matrix product and a selection for each block of the database, merged on the host.

import type { Backend, Executable } from "../../models/graph/backend.ts";
import { matmul } from "../../models/graph/ops/matmul.ts";
import { topK } from "../../models/graph/ops/neighbours.ts";
import { Program } from "../../models/graph/program.ts";
import { type Tensor, tensor } from "../../models/graph/tensor.ts";
import { emptyNeighbours, type Neighbours, type NeighbourSearch } from "./knn.ts";

// 256 × 8192 similarities take 8 MB: large enough to keep a device busy, small beside any model.
const QUERIES = 256;
const ROWS = 8192;

interface Block {
  readonly queries: Tensor;
  readonly database: Tensor;
  readonly values: Tensor;
  readonly indices: Tensor;
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
      backend.free(block.queries, block.database, block.values, block.indices);
    }
    return found ?? emptyNeighbours(count, 0);
  };
}

async function compileBlock(backend: Backend, chunk: number, rows: number, dim: number, k: number): Promise<Block> {
  const program = new Program("neighbours");
  const queries = tensor("queries", [chunk, dim], "input");
  const database = tensor("database", [rows, dim], "input");
  const { values, indices } = topK(program, matmul(program, queries, database, { transB: true }), k);
  return { queries, database, values, indices, executable: await backend.compile(program) };
}

async function searchBlock(
  backend: Backend,
  block: Block,
  queries: Float32Array,
  count: number,
  chunk: number,
  dim: number,
): Promise<Neighbours> {
  const k = block.values.shape[1];
  const found = emptyNeighbours(count, k);
  for (let start = 0; start < count; start += chunk) {
    // The last chunk begins earlier and repeats some queries: one program serves all.
    const from = Math.min(start, count - chunk);
    backend.write(block.queries, queries.subarray(from * dim, (from + chunk) * dim));
    await block.executable.run();
    found.similarities.set(await backend.read(block.values) as Float32Array, from * k);
    found.indices.set(await backend.read(block.indices) as Int32Array, from * k);
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
