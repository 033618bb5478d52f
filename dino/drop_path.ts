// Stochastic depth: which residual branches the student skips, drawn on the host by counter and read by the kernels.

import type { Backend } from "../models/graph/backend.ts";
import { Arena, layoutSegments } from "../models/graph/arena.ts";
import { CounterRandom, STREAM } from "../models/rng.ts";
import type { Tensor } from "../models/graph/tensor.ts";

/** Consecutive views that share a pass through the backbone. */
export interface ViewGroup {
  readonly firstView: number;
  readonly views: number;
}

/** Factors of every residual branch for one part of a batch: 0 to skip it, 1 / (1 − probability) to keep it. */
export class DropPath {
  readonly #arena: Arena;
  readonly #values: Float32Array;
  readonly #random: CounterRandom;

  /**
   * @param probabilities of skipping a branch, by block; 0 draws nothing
   * @param branches of a block
   * @param images of one part of a batch
   */
  constructor(
    readonly probabilities: readonly number[],
    readonly branches: number,
    readonly groups: readonly ViewGroup[],
    readonly images: number,
    seed: number,
  ) {
    const factors = groups.flatMap((group, g) =>
      this.#dropping().flatMap((block) =>
        range(this.branches).map((branch) => [`${g}.${block}.${branch}`, [group.views * images]] as const)
      )
    );
    this.#arena = new Arena("dropPath", layoutSegments(factors), "input");
    this.#values = new Float32Array(this.#arena.flat.shape[0]);
    this.#random = new CounterRandom(seed, STREAM.dropPath);
  }

  /** The tensor all factors live in; empty at rate 0. */
  get tensor(): Tensor {
    return this.#arena.flat;
  }

  /** Factors of a branch for the rows of a group, view-major; undefined where nothing is ever skipped. */
  factors(group: number, block: number, branch: number): Tensor | undefined {
    return this.#arena.tensors.get(`${group}.${block}.${branch}`);
  }

  /**
   * Draws the factors of one update and sends them.
   *
   * A draw is named by (update, place in the batch, view), so parts of a batch draw what the whole would.
   *
   * @param firstImage place in the batch of the part's first image
   */
  write(backend: Backend, step: number, firstImage: number): void {
    if (this.#values.length === 0) return;
    const members = this.#arena.segments;
    const blocks = this.#dropping();
    let base = 0;
    for (const group of this.groups) {
      for (let row = 0; row < group.views * this.images; row++) {
        const image = firstImage + row % this.images;
        this.#random.restart(step, image, group.firstView + Math.floor(row / this.images));
        for (let i = 0; i < blocks.length; i++) {
          const skip = this.probabilities[blocks[i]];
          for (let branch = 0; branch < this.branches; branch++) {
            this.#values[members[base + this.branches * i + branch].offset + row] = this.#random.chance(skip)
              ? 0
              : 1 / (1 - skip);
          }
        }
      }
      base += this.branches * blocks.length;
    }
    backend.write(this.#arena.flat, this.#values);
  }

  #dropping(): number[] {
    return range(this.probabilities.length).filter((block) => this.probabilities[block] > 0);
  }
}

const range = (n: number) => [...Array(n).keys()];
