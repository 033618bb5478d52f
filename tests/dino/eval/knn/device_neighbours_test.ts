// Neighbours on every backend: blocks, banks, ties across them, and whole rankings, all as the host finds them.
import { deviceSearch, openNeighbours } from "../../../../dino/eval/knn/device_neighbours.ts";
import { searchNeighbours } from "../../../../dino/eval/knn/knn.ts";
import { OutOfMemoryError } from "../../../../models/graph/backend.ts";
import { tensor } from "../../../../models/graph/tensor.ts";
import { openWasm } from "../../../../wasm/mod.ts";
import { assertEquals, assertRejects } from "../../../assert.ts";
import { onEachBackend } from "../../../backends.ts";

const dim = 5, count = 7, size = 61;
// Halves and small whole numbers: sums are exact in any order, and many are equal.
const rows = (n: number, seed: number) => Float32Array.from({ length: n * dim }, (_, i) => (i * seed % 7 - 3) / 2);
const queries = rows(count, 5), database = rows(size, 11);

onEachBackend("a search in blocks and banks finds what the host finds, ties by row", async (backend) => {
  for (const k of [1, 9, 20, 61]) {
    const expected = searchNeighbours(queries, database, dim, k);
    for (
      const sizes of [
        { queries: 3, rows: 8, blocks: 3, mostSelected: 61 },
        { queries: 4, rows: 20, blocks: 9, mostSelected: 61 },
        { queries: 16, rows: 16, blocks: 2, mostSelected: 8 }, // ranked on the host beyond 8
      ]
    ) {
      const found = await deviceSearch(backend, sizes)(queries, database, dim, k);
      assertEquals(found.indices, expected.indices, `${k} of ${JSON.stringify(sizes)}`);
      assertEquals(found.similarities, expected.similarities);
    }
  }
});

onEachBackend("a bank stays for several calls", async (backend) => {
  const bank = await openNeighbours(backend, database, dim, { k: 4, queries: 3, sizes: { rows: 10 } });
  for (const [from, to] of [[0, 3], [3, 7], [6, 7]]) {
    const part = queries.subarray(from * dim, to * dim);
    assertEquals((await bank.search(part)).indices, searchNeighbours(part, database, dim, 4).indices);
  }
  bank.close();
  await assertRejects(
    () => openNeighbours(backend, database, dim, { k: 9000, queries: 3 }),
    RangeError,
    "selects up to",
  );
});

Deno.test({
  name: "device neighbours: a device that has no room for many blocks gets fewer, to the same result",
  sanitizeOps: false, // worker threads outlive the test that closes them by a moment
  sanitizeResources: false,
  async fn() {
    const dim = 64, count = 4096, sizes = { rows: 256, queries: 5 };
    const values = (n: number) => Float32Array.from({ length: n * dim }, (_, i) => Math.sin(i * i % 9973));
    const queries = values(5), database = values(count);
    // Of 64 MiB about 0.5 are left: half of the database.
    const backend = await openWasm({ threads: 1, maximumBytes: 2 ** 26 });
    try {
      const plenty = await deviceSearch(backend, sizes)(queries, database, dim, 7);
      const filler = tensor("filler", [2 ** 24 - 150_000], "state");
      backend.write(filler, Float32Array.of(1));
      const { persistent } = backend.memory;
      const little = await deviceSearch(backend, sizes)(queries, database, dim, 7);
      assertEquals([little.indices, little.similarities], [plenty.indices, plenty.similarities]);
      assertEquals(backend.memory.persistent, persistent);
      backend.write(tensor("the rest", [130_000], "state"), Float32Array.of(1));
      await assertRejects(async () => await deviceSearch(backend, sizes)(queries, database, dim, 7), OutOfMemoryError);
    } finally {
      await backend.close();
    }
  },
});
