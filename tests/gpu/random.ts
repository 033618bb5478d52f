// A small generator for test operands; the project's own counter generator is tested elsewhere.

/** Uniform numbers in (−1, 1) by a linear congruence. */
export class RandomNumbers {
  #state: number;

  constructor(seed: number) {
    this.#state = (seed * 2654435761) >>> 0;
  }

  next(): number {
    this.#state = (Math.imul(this.#state, 1664525) + 1013904223) >>> 0;
    return this.#state / 2 ** 31 - 1;
  }
}
