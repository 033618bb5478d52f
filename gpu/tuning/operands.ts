// What kernels are compared on: pseudo-random operands that stay on the device while a tuner looks at one shape after the other.
import { size, type Tensor, tensor, view } from "../../models/graph/tensor.ts";
import type { Tunable } from "./tunable.ts";

/** Bytes beyond which an operand is cut along the batch: enough workgroups remain for the timing to hold. */
export const LARGEST_OPERAND = 2 ** 26;

/** Values repeat after this many elements, so that filling a large operand is a series of copies; even, as words hold two halves. */
const PERIOD = 2 ** 20 - 6;

/** The element at index i of an operand: pseudo-random in (−1, 1), the same on every machine; as f16 keeps it if `half`. */
export function tuningValue(i: number, seed: number, half = false): number {
  const x = Math.imul((i % PERIOD) + 1, 2654435761 * seed | 1);
  const value = ((Math.imul(x ^ (x >>> 15), 2246822519) >>> 8) / 2 ** 23) - 1;
  return half ? Math.f16round(value) : value;
}

/** An operand to compare kernels on. */
export interface TuningOperand {
  readonly tensor: Tensor;
  /** Kept as f16: its values take half of the buffer's bytes. */
  readonly half: boolean;
}

/** Operands and results that programs of one comparison bind, and the next one again. */
export class TuningOperands {
  readonly #roots = new Map<string, Tensor>();
  readonly #unfilled = new Map<Tensor, { readonly seed: number; readonly half: boolean }>();

  constructor(readonly backend: Tunable) {}

  /**
   * A tensor of this shape over a buffer that others of the name share; of a `seed` it holds {@link tuningValue}, once
   * {@link fill} has run. Takes no room before a program with it is compiled, which is where a lack of it shows.
   */
  of(
    name: string,
    shape: readonly number[],
    { half = false, seed }: { half?: boolean; seed?: number } = {},
  ): TuningOperand {
    const key = `${name} ${half}`, elements = shape.reduce((a, b) => a * b, 1);
    let root = this.#roots.get(key);
    if (!root || size(root) < elements) {
      if (root) this.#drop(root);
      // The next shape may be larger.
      root = tensor(`tuning ${name}`, [2 ** Math.ceil(Math.log2(Math.max(64, elements)))], "state");
      this.#roots.set(key, root);
      if (seed !== undefined) this.#unfilled.set(root, { seed, half });
    }
    return { tensor: view(root, root.name, shape, 0), half };
  }

  /** Ids of the tensors that a program should take for f16. */
  halvesOf(...operands: readonly TuningOperand[]): Set<number> {
    return new Set(operands.filter(({ half }) => half).map(({ tensor }) => tensor.base!.id));
  }

  /** Writes the values of operands that have none yet. Their buffers are there. */
  fill(): void {
    for (const [root, { seed, half }] of this.#unfilled) {
      // Filled to the end, a power of two: nothing is left that could be NaN.
      const length = Math.min(PERIOD, size(root));
      const values = Float32Array.from({ length }, (_, i) => tuningValue(i, seed));
      // Two halves in the place of a float, as kernels find them.
      const words = half ? new Float32Array(Float16Array.from(values).buffer) : values, elements = half ? 2 : 1;
      for (let at = 0; at < size(root); at += PERIOD) {
        const count = Math.min(PERIOD, size(root) - at) / elements;
        this.backend.write(root, words.subarray(0, count), at / elements);
      }
    }
    this.#unfilled.clear();
  }

  /** Elements start … start + length; start a multiple of 128. */
  async read({ tensor: t, half }: TuningOperand, start: number, length: number): Promise<ArrayLike<number>> {
    const root = t.base!, words = half ? Math.ceil(length / 2) : length;
    const got = await this.backend.read(view(root, "sample", [words], half ? start / 2 : start));
    return half ? new Float16Array(got.buffer as ArrayBuffer).subarray(0, length) : got as Float32Array;
  }

  /** Makes elements start … start + length NaN, so that a kernel which writes nothing does not pass for the one before it. */
  spoil({ tensor: t, half }: TuningOperand, start: number, length: number): void {
    const elements = half ? 2 : 1; // two NaN of f16 in a word
    const words = new Float32Array(new Uint32Array(Math.ceil(length / elements)).fill(0x7fff7fff).buffer);
    this.backend.write(t.base!, words, start / elements);
  }

  /** Frees everything. */
  free(): void {
    for (const root of this.#roots.values()) this.#drop(root);
    this.#roots.clear();
  }

  #drop(root: Tensor): void {
    this.backend.free(root);
    this.#unfilled.delete(root);
  }
}
