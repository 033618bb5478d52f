// Video object segmentation without training: the first frame's mask, carried from frame to frame by similar patches.

import type { Backend } from "../../../models/graph/backend.ts";
import { WindowSearch } from "./affinity.ts";
import { twoTaps } from "../resize_bilinear.ts";

/** How masks are propagated; the defaults are the reference's. */
export interface PropagationOptions {
  /** Rows of patches. */
  readonly gridHeight: number;
  /** Columns of patches. */
  readonly gridWidth: number;
  /** Width of a patch's features. */
  readonly dim: number;
  /** Labels, background included. */
  readonly classes: number;
  /** Earlier frames looked at, besides the first. */
  readonly lastFrames?: number;
  /** Patches in each direction around a patch; 0 looks at whole frames. */
  readonly radius?: number;
  /** Patches that vote. */
  readonly k?: number;
  /** A patch of cosine c votes with exp(c / temperature). */
  readonly temperature?: number;
}

/** Masks of a sequence, one frame after the other. */
export class MaskPropagation {
  /** Masks by slot; slot 0 holds the first frame for good. */
  readonly #masks: Float32Array[] = [];
  #frames = 0;

  private constructor(
    readonly options: Required<PropagationOptions>,
    readonly search: WindowSearch,
  ) {}

  /** Compiles the search. */
  static async create(backend: Backend, options: PropagationOptions): Promise<MaskPropagation> {
    const full = { lastFrames: 7, radius: 12, k: 5, temperature: 0.1, ...options };
    const search = await WindowSearch.create(backend, { ...full, slots: full.lastFrames + 1 });
    return new MaskPropagation(full, search);
  }

  /**
   * Begins a sequence.
   *
   * @param features [patches, dim] of its first frame
   * @param mask [classes, patches]: the share of each label in each patch
   */
  start(features: Float32Array, mask: Float32Array): void {
    this.#check(features);
    const { classes, gridHeight, gridWidth } = this.options;
    if (mask.length !== classes * gridHeight * gridWidth) {
      throw new RangeError(
        `video: a mask of ${mask.length} values for ${classes} labels of ${gridHeight}×${gridWidth}`,
      );
    }
    this.search.store(0, features);
    this.#masks.length = 0;
    this.#masks.push(mask);
    this.#frames = 1;
  }

  /**
   * Carries the masks on to the next frame.
   *
   * @param features [patches, dim]
   * @returns [classes, patches], shares that sum to 1 for every patch
   */
  async next(features: Float32Array): Promise<Float32Array> {
    this.#check(features);
    if (this.#frames === 0) throw new TypeError("video: a sequence begins with start()");
    const { classes, gridHeight, gridWidth, lastFrames, k, temperature } = this.options;
    const patches = gridHeight * gridWidth;
    const filled = this.#masks.length;
    const mask = new Float32Array(classes * patches);
    // All candidates of one patch, over frames: patch, frame and similarity.
    const candidates = { similarity: [] as number[], source: [] as number[], slot: [] as number[] };
    await this.search.search(features, filled, (patch, slot, similarities, sources) => {
      for (let i = 0; i < similarities.length && similarities[i] > -2; i++) {
        candidates.similarity.push(similarities[i]);
        candidates.source.push(sources[i]);
        candidates.slot.push(slot);
      }
      if (slot < filled - 1) return;
      this.#vote(mask, patch, candidates, k, temperature);
      candidates.similarity.length = candidates.source.length = candidates.slot.length = 0;
    });
    if (lastFrames > 0) {
      const slot = 1 + (this.#frames - 1) % lastFrames;
      this.search.store(slot, features);
      this.#masks[slot] = mask;
    }
    this.#frames++;
    return mask;
  }

  /** Frees the search. */
  dispose(): void {
    this.search.dispose();
  }

  /** The k most similar of all frames vote, with them any that are exactly as similar as the last of those. */
  #vote(
    mask: Float32Array,
    patch: number,
    candidates: { similarity: number[]; source: number[]; slot: number[] },
    k: number,
    temperature: number,
  ): void {
    const { classes, gridHeight, gridWidth } = this.options;
    const patches = gridHeight * gridWidth;
    const { similarity, source, slot } = candidates;
    const threshold = similarity.length > k ? Float64Array.from(similarity).sort().at(-k)! : -Infinity;
    let total = 0;
    for (let i = 0; i < similarity.length; i++) {
      if (similarity[i] < threshold) continue;
      const weight = Math.exp(similarity[i] / temperature);
      total += weight;
      const from = this.#masks[slot[i]];
      for (let c = 0; c < classes; c++) mask[c * patches + patch] += weight * from[c * patches + source[i]];
    }
    for (let c = 0; c < classes; c++) mask[c * patches + patch] /= total;
  }

  #check(features: Float32Array): void {
    const { dim, gridHeight, gridWidth } = this.options;
    if (features.length !== dim * gridHeight * gridWidth) {
      throw new RangeError(`video: ${features.length} features for ${gridHeight}×${gridWidth} patches of ${dim}`);
    }
  }
}

/**
 * A mask at the size of the pixels: bilinear by `factor`, then each label that occurs stretched to 0 … 1.
 *
 * A label whose shares are all equal and positive is 0/0 in the reference; here it stays as it is.
 *
 * @param mask [classes, height, width]
 * @returns [classes, height · factor, width · factor]
 */
export function upsampleMask(
  mask: Float32Array,
  classes: number,
  height: number,
  width: number,
  factor: number,
): Float32Array {
  const H = height * factor, W = width * factor;
  const rows = twoTaps(height, H, factor), columns = twoTaps(width, W, factor);
  const up = new Float32Array(classes * H * W);
  for (let c = 0; c < classes; c++) {
    const plane = mask.subarray(c * height * width, (c + 1) * height * width);
    let min = Infinity, max = -Infinity;
    for (let y = 0; y < H; y++) {
      const top = rows.first[y] * width, bottom = rows.second[y] * width, down = rows.weight[y];
      for (let x = 0; x < W; x++) {
        const left = columns.first[x], right = columns.second[x], across = columns.weight[x];
        const above = plane[top + left] * (1 - across) + plane[top + right] * across;
        const below = plane[bottom + left] * (1 - across) + plane[bottom + right] * across;
        const value = above * (1 - down) + below * down;
        up[(c * H + y) * W + x] = value;
        min = Math.min(min, value);
        max = Math.max(max, value);
      }
    }
    if (!(max > 0 && max > min)) continue;
    for (let i = c * H * W; i < (c + 1) * H * W; i++) up[i] = (up[i] - min) / (max - min);
  }
  return up;
}

/**
 * The label with the highest score of each pixel; of equal ones the first.
 *
 * @param scores [classes, pixels]
 */
export function labelPixels(scores: Float32Array, classes: number): Uint8Array<ArrayBuffer> {
  const pixels = scores.length / classes;
  const labels = new Uint8Array(pixels);
  for (let i = 0; i < pixels; i++) {
    let best = 0;
    for (let c = 1; c < classes; c++) if (scores[c * pixels + i] > scores[best * pixels + i]) best = c;
    labels[i] = best;
  }
  return labels;
}
