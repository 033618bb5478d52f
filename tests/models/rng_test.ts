// The counter RNG: published answers of Philox, distributions, and independence of the order of use.
import { CounterRandom, epochPermutation, philox4x32, STREAM } from "../../models/rng.ts";
import { assert, assertEquals, assertThrows } from "../assert.ts";

Deno.test("philox4x32 gives the answers published with Random123", () => {
  const cases: [number[], number, number, number[]][] = [
    [[0, 0, 0, 0], 0, 0, [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]],
    [[~0, ~0, ~0, ~0], ~0, ~0, [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      0xa4093822,
      0x299f31d0,
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ];
  for (const [counter, key0, key1, expected] of cases) {
    const words = new Uint32Array(counter);
    philox4x32(words, key0, key1);
    assertEquals([...words], expected);
  }
});

Deno.test("a sequence depends on its coordinates only, not on what was drawn before", () => {
  const draw = (random: CounterRandom) => [random.float(), random.integer(7), random.normal(), random.uint32()];
  const fresh = draw(new CounterRandom(3, STREAM.augmentation, 1, 2, 3));
  const used = new CounterRandom(3, STREAM.augmentation, 9, 9, 9);
  used.normal(); // leaves a spare value behind, which must not leak
  assertEquals(draw(used.restart(1, 2, 3)), fresh);

  const others = [
    new CounterRandom(4, STREAM.augmentation, 1, 2, 3),
    new CounterRandom(3 + 2 ** 32, STREAM.augmentation, 1, 2, 3),
    new CounterRandom(3, STREAM.shuffle, 1, 2, 3),
    new CounterRandom(3, STREAM.augmentation, 2, 1, 3),
    new CounterRandom(3, STREAM.augmentation, 1, 2, 4),
  ];
  for (const other of others) assert(draw(other)[3] !== fresh[3]);
});

Deno.test("draws have the moments of their distributions", () => {
  const n = 100_000; // standard errors below are those of the mean of n independent draws; five of them are allowed
  const random = new CounterRandom(0, STREAM.evaluation);
  let sum = 0, squares = 0, smallest = 1, largest = 0;
  for (let i = 0; i < n; i++) {
    const x = random.float();
    sum += x;
    smallest = Math.min(smallest, x);
    largest = Math.max(largest, x);
  }
  assert(Math.abs(sum / n - 0.5) < 5 * Math.sqrt(1 / 12 / n));
  assert(smallest >= 0 && smallest < 1e-3 && largest < 1 && largest > 0.999);

  sum = 0;
  for (let i = 0; i < n; i++) {
    const x = random.normal();
    sum += x;
    squares += x * x;
  }
  assert(Math.abs(sum / n) < 5 / Math.sqrt(n));
  assert(Math.abs(squares / n - 1) < 5 * Math.sqrt(2 / n));

  const counts = new Float64Array(5);
  for (let i = 0; i < n; i++) counts[random.integer(5)]++;
  for (const count of counts) assert(Math.abs(count - n / 5) < 5 * Math.sqrt(n * 0.2 * 0.8));
});

Deno.test("truncated normal stays within its bounds and refuses bounds it could not fill", () => {
  const values = new CounterRandom(1, STREAM.initialization).fillTruncatedNormal(new Float32Array(4096), 1, -0.5, 1);
  assert(values.every((x) => x >= -0.5 && x <= 1));
  assertThrows(
    () => new CounterRandom(1, STREAM.initialization).fillTruncatedNormal(new Float32Array(1), 1, 2, 3),
    RangeError,
    "enclose 0",
  );
});

Deno.test("an epoch's order is a permutation, another one each epoch and seed", () => {
  for (const count of [0, 1, 2, 37, 1000]) {
    assertEquals([...epochPermutation(count, 5, 2)].sort((a, b) => a - b), Array.from({ length: count }, (_, i) => i));
  }
  const order = epochPermutation(100, 5, 2).join();
  assertEquals(epochPermutation(100, 5, 2).join(), order);
  assert(epochPermutation(100, 5, 3).join() !== order);
  assert(epochPermutation(100, 6, 2).join() !== order);
});

Deno.test("seeds and coordinates that would be cut are refused", () => {
  assertThrows(() => new CounterRandom(-1, STREAM.shuffle), RangeError, "seed -1");
  assertThrows(() => new CounterRandom(0.5, STREAM.shuffle), RangeError, "seed 0.5");
  assertThrows(() => new CounterRandom(0, STREAM.shuffle, 2 ** 32), RangeError, "below 2^32");
  assertThrows(() => new CounterRandom(0, STREAM.shuffle).integer(0), RangeError, "number of outcomes");
});
