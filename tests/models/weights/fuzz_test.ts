// A few hundred mutated files of every format; `deno run -A tests/models/weights/fuzz.ts` makes as many as one likes.

import { assert, assertEquals } from "../../assert.ts";
import { openWeights } from "../../../models/weights/open.ts";
import { bytesSource } from "../../../models/weights/safetensors.ts";
import { fuzz, fuzzSeeds } from "./fuzz.ts";

Deno.test("weights: mutated files end in tensors or in a clear error, soon and in little memory", async () => {
  const seeds = await fuzzSeeds();
  for (const { name, bytes } of seeds) {
    if (name.endsWith(".json")) continue; // what a folder says, no tensors
    assert((await openWeights(bytesSource(bytes, name))).tensors.size > 0, `${name} itself is refused`);
  }
  const inputs = Number(Deno.env.get("DENODINO_SOAK") ?? 600);
  const { accepted, refused, failures, grownBytes } = await fuzz(seeds, inputs, 20);
  assertEquals(failures, []);
  assertEquals(accepted + refused, inputs);
  // Both must happen, or the mutations test nothing.
  assert(accepted > inputs / 50 && refused > inputs / 10, `${accepted} accepted, ${refused} refused`);
  assert(grownBytes < 1e9, `grew by ${grownBytes} bytes`);
});
