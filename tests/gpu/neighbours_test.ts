// k-NN as on a graphics card, with everything beyond what is bound at once: a bank in blocks, scores in tiles, long selections.
import { openNeighbours } from "../../dino/eval/knn/device_neighbours.ts";
import { searchNeighbours } from "../../dino/eval/knn/knn.ts";
import { assert, assertEquals } from "../assert.ts";
import { onGpu } from "./open.ts";

// Small whole numbers: sums are exact in any order, and many are equal.
const rows = (n: number, dim: number, seed: number) =>
  Float32Array.from({ length: n * dim }, (_, i) => (Math.imul(i + 1, seed) >>> 13) % 9 - 4);

onGpu("a bank many times what is bound at once is searched in blocks, by scores in tiles", async (backend) => {
  const bindingBytes = 64 * 1024;
  backend.limits = { ...backend.limits, bindingBytes };
  for (
    const [queries, size, dim, k, blockRows] of [
      [80, 3000, 32, 20, 512], // scores of a block take 160 KiB
      [3, 5632, 8, 5120, 512], // the first block holds as many rows as are asked for; what they win takes 123 KB
    ]
  ) {
    assert(4 * size * dim > 2 * bindingBytes);
    const database = rows(size, dim, 2654435761), asked = rows(queries, dim, 40503);
    const expected = searchNeighbours(asked, database, dim, k);
    const bank = await openNeighbours(backend, database, dim, {
      k,
      queries,
      sizes: { rows: blockRows, mostSelected: k },
    });
    const found = await bank.search(asked);
    bank.close();
    assertEquals(found.indices, expected.indices, `${k} of ${size}`);
    assertEquals(found.similarities, expected.similarities);
  }
});
