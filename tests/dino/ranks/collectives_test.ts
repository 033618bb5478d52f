// What ranks do together: sums of one order, gathering, telling, and the end of all when one fails.

import { ALONE, type Communicator } from "../../../models/graph/communicator.ts";
import { ranksInProcess } from "../../../dino/ranks/in_process.ts";
import { assert, assertEquals, assertRejects, assertThrows } from "../../assert.ts";
import { noise } from "../../models/graph/op_cases.ts";

/** Runs the same on every rank at a time. */
function together<T>(ranks: readonly Communicator[], run: (rank: Communicator) => Promise<T>): Promise<T[]> {
  return Promise.all(ranks.map(run));
}

// Short data goes to everyone, long data in slices; 4 200 001 floats are more than one chunk of them.
for (const [size, length] of [[1, 5], [2, 1], [3, 16384], [3, 16385], [4, 40001], [2, 4_200_001]]) {
  Deno.test(`collectives: ${length} floats are added up in float64, in the order of ${size} ranks`, async () => {
    const data = Array.from({ length: size }, (_, rank) => {
      const at = noise(rank + 1);
      // Magnitudes in which another order, or float32 in between, would round differently.
      const scales = Array.from({ length: 7 }, (_, i) => 10 ** (i - 3 * rank)), values = new Float32Array(length);
      for (let i = 0; i < length; i++) values[i] = at() * scales[i % 7];
      return values;
    });
    const truth = new Float32Array(length);
    for (let i = 0; i < length; i++) {
      let sum = 0;
      for (const part of data) sum += part[i];
      truth[i] = sum;
    }
    await together(ranksInProcess(size), (c) => c.allReduce(data[c.rank]));
    for (const part of data) assert(part.every((value, i) => value === truth[i]), "not the sum, to the bit");
  });
}

Deno.test("collectives: gathering keeps the order of ranks, rank 0 is heard, and everybody waits for the last", async () => {
  const ranks = ranksInProcess(3), order: string[] = [];
  const gathered = await together(ranks, async (c) => {
    const data = Uint8Array.of(c.rank, 7);
    const parts = await c.allGather(data);
    data.fill(99); // what was gathered is a copy
    return parts.map((part) => [...part]);
  });
  assertEquals(gathered, Array(3).fill([[0, 7], [1, 7], [2, 7]]));
  const heard = await together(ranks, async (c) => {
    const data = Uint8Array.of(c.rank + 5);
    await c.broadcast(data);
    return data[0];
  });
  assertEquals(heard, [5, 5, 5]);
  await together(ranks, async (c) => {
    await new Promise((resolve) => setTimeout(resolve, 5 * c.rank));
    order.push("comes");
    await c.barrier();
    order.push("goes");
  });
  assertEquals(order, [..."comes ".repeat(3).trim().split(" "), ..."goes ".repeat(3).trim().split(" ")]);
});

Deno.test("collectives: a rank that fails ends the waiting of the others, and ranks that disagree are told", async () => {
  const ranks = ranksInProcess(3);
  const waiting = ranks.slice(0, 2).map((c) => assertRejects(() => c.barrier(), Error, "rank 2 failed: no memory"));
  await ranks[2].abort("no memory");
  await Promise.all(waiting);
  await assertRejects(() => ranks[0].allReduce(new Float32Array(3)), Error, "rank 2 failed: no memory");
  const [a, b] = ranksInProcess(2);
  await Promise.all([
    assertRejects(() => a.allGather(new Uint8Array(3)), Error, "bytes"),
    assertRejects(() => b.allGather(new Uint8Array(4)), Error, "bytes"),
  ]);
  assertThrows(() => ranksInProcess(0), RangeError, "0 ranks");
});

Deno.test("collectives: alone, everything is what it was", async () => {
  const data = Float32Array.of(1, 2);
  await ALONE.allReduce(data);
  assertEquals([[...data], await ALONE.allGather(Uint8Array.of(3))], [[1, 2], [Uint8Array.of(3)]]);
  await ALONE.barrier();
});
