// Neighbours on every backend: blocks, banks, ties across them, and whole rankings, all as the host finds them.
import { deviceSearch, openNeighbours } from "../../../../dino/eval/knn/device_neighbours.ts";
import { searchNeighbours } from "../../../../dino/eval/knn/knn.ts";
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
