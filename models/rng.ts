// Random numbers by counter: the same (seed, stream, a, b, c) gives the same draws on any backend, in any order.

/**
 * What the draws are for. Streams of one seed never share a draw, so adding a use does not disturb the others.
 * Values are part of the checkpoint format: append, never renumber.
 */
export const STREAM = {
  augmentation: 1,
  shuffle: 2,
  dropPath: 3,
  initialization: 4,
  split: 5,
  evaluation: 6,
} as const;

/** A purpose of draws, see {@link STREAM}. */
export type Stream = (typeof STREAM)[keyof typeof STREAM];

const MULTIPLIER_0 = 0xd2511f53; // the four constants of Philox4x32 (Salmon et al., SC 2011)
const MULTIPLIER_1 = 0xcd9e8d57;
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;
const ROUNDS = 10;

/** Upper 32 bits of the 64-bit product of two unsigned 32-bit integers. */
function multiplyHigh(a: number, b: number): number {
  const a0 = a & 0xffff, a1 = a >>> 16, b0 = b & 0xffff, b1 = b >>> 16;
  const middle = a1 * b0 + ((a0 * b0) >>> 16); // below 2^32, exact
  const cross = a0 * b1 + (middle & 0xffff);
  return (a1 * b1 + (middle >>> 16) + (cross >>> 16)) >>> 0;
}

/**
 * Philox4x32-10: replaces the four words of `counter` by four random words, in place.
 *
 * @param counter four unsigned 32-bit words
 */
export function philox4x32(counter: Uint32Array, key0: number, key1: number): void {
  let c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  let k0 = key0 >>> 0, k1 = key1 >>> 0;
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = multiplyHigh(MULTIPLIER_0, c0), low0 = Math.imul(MULTIPLIER_0, c0);
    const high1 = multiplyHigh(MULTIPLIER_1, c2), low1 = Math.imul(MULTIPLIER_1, c2);
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = low1 >>> 0;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = low0 >>> 0;
    k0 = (k0 + WEYL_0) >>> 0;
    k1 = (k1 + WEYL_1) >>> 0;
  }
  counter[0] = c0;
  counter[1] = c1;
  counter[2] = c2;
  counter[3] = c3;
}

/**
 * A sequence of draws named by `(seed, stream, a, b, c)`; nothing carries over between sequences.
 *
 * For augmentation the three coordinates are (epoch, image, view); for a shuffle (epoch); see the callers.
 */
export class CounterRandom {
  readonly #block = new Uint32Array(4);
  #key0 = 0;
  #key1 = 0;
  #a = 0;
  #b = 0;
  #c = 0;
  #draws = 0;
  #spareNormal = NaN;

  /**
   * Starts at the first draw of the coordinates.
   *
   * @throws {RangeError} if a coordinate is not an unsigned 32-bit integer or `seed` not a safe integer ≥ 0
   */
  constructor(seed: number, stream: Stream, a = 0, b = 0, c = 0) {
    if (!Number.isSafeInteger(seed) || seed < 0) {
      throw new RangeError(`seed ${seed} is not a whole number between 0 and 2^53 - 1`);
    }
    this.#key0 = seed >>> 0;
    this.#key1 = (Math.floor(seed / 2 ** 32) + stream * 2 ** 21) >>> 0; // a seed has 21 bits above the lower word
    this.restart(a, b, c);
  }

  /** Goes to the first draw of other coordinates, without allocating. */
  restart(a = 0, b = 0, c = 0): this {
    for (const coordinate of [a, b, c]) {
      if (coordinate !== coordinate >>> 0) {
        throw new RangeError(`random coordinates (${a}, ${b}, ${c}): each must be a whole number below 2^32`);
      }
    }
    this.#a = a;
    this.#b = b;
    this.#c = c;
    this.#draws = 0;
    this.#spareNormal = NaN;
    return this;
  }

  /** Uniform over the unsigned 32-bit integers. */
  uint32(): number {
    const word = this.#draws & 3;
    if (word === 0) {
      this.#block[0] = this.#draws >>> 2;
      this.#block[1] = this.#a;
      this.#block[2] = this.#b;
      this.#block[3] = this.#c;
      philox4x32(this.#block, this.#key0, this.#key1);
    }
    // 2^34 draws would repeat the block counter; a parameter tensor needs less than 2^30.
    this.#draws++;
    return this.#block[word];
  }

  /** Uniform in [0, 1): multiples of 2^-24, hence exact in float32 too. */
  float(): number {
    return (this.uint32() >>> 8) * 2 ** -24;
  }

  /** Uniform in [low, high). */
  uniform(low: number, high: number): number {
    return low + (high - low) * this.float();
  }

  /** True with the given probability; always draws, so that later draws do not depend on it. */
  chance(probability: number): boolean {
    return this.float() < probability;
  }

  /**
   * Uniform over 0 … count − 1, without bias.
   *
   * @throws {RangeError} if `count` is not in 1 … 2^32
   */
  integer(count: number): number {
    if (!Number.isInteger(count) || count < 1 || count > 2 ** 32) {
      throw new RangeError(`integer(${count}): the number of outcomes must be a whole number in 1 … 2^32`);
    }
    const fair = 2 ** 32 - (2 ** 32 % count); // words from here on would favour the small outcomes
    for (;;) {
      const word = this.uint32();
      if (word < fair) return word % count;
    }
  }

  /** Standard normal (Box–Muller; the second value of a pair is kept for the next call). */
  normal(): number {
    if (!Number.isNaN(this.#spareNormal)) {
      const spare = this.#spareNormal;
      this.#spareNormal = NaN;
      return spare;
    }
    const radius = Math.sqrt(-2 * Math.log((this.uint32() + 1) * 2 ** -32)); // the argument is in (0, 1]
    const angle = 2 * Math.PI * this.uint32() * 2 ** -32;
    this.#spareNormal = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }

  /**
   * Fills with N(0, deviation²) restricted to [low, high] by redrawing. Bounds are absolute, as in timm.
   *
   * @throws {RangeError} unless the bounds enclose 0
   */
  fillTruncatedNormal(target: Float32Array, deviation: number, low = -2, high = 2): Float32Array {
    if (!(low < 0 && high > 0)) throw new RangeError(`truncated normal: bounds ${low} … ${high} do not enclose 0`);
    for (let i = 0; i < target.length; i++) {
      let value: number;
      do value = this.normal() * deviation; while (value < low || value > high);
      target[i] = value;
    }
    return target;
  }

  /** Fills with U[low, high). */
  fillUniform(target: Float32Array, low: number, high: number): Float32Array {
    for (let i = 0; i < target.length; i++) target[i] = this.uniform(low, high);
    return target;
  }

  /** Puts the elements in a uniformly random order, in place (Fisher–Yates). */
  shuffle<T extends { length: number; [index: number]: number }>(items: T): T {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.integer(i + 1);
      const kept = items[i];
      items[i] = items[j];
      items[j] = kept;
    }
    return items;
  }
}

/** The order in which an epoch visits `count` images: a function of seed and epoch alone. */
export function epochPermutation(count: number, seed: number, epoch: number): Uint32Array {
  const order = new Uint32Array(count);
  for (let i = 0; i < count; i++) order[i] = i;
  return new CounterRandom(seed, STREAM.shuffle, epoch).shuffle(order);
}
