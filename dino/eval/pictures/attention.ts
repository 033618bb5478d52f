// What [CLS], or any patch, looks at: maps of the last block's heads, masks that keep a share of the mass, Jaccard.

/** Attention of one image's heads over its patches. */
export interface AttentionMaps {
  /** How many heads. */
  readonly heads: number;
  /** Rows of patches. */
  readonly gridHeight: number;
  /** Columns of patches. */
  readonly gridWidth: number;
  /** [heads, gridHeight, gridWidth]: the share of a head's attention on each patch; what goes to [CLS] is left out. */
  readonly maps: Float32Array;
}

/**
 * Maps of one query token.
 *
 * @param attention [heads, 1 + gridHeight · gridWidth]: softmaxed attention of the query over all tokens
 * @throws {RangeError} if the extents do not fit
 */
export function attentionMaps(
  attention: Float32Array,
  heads: number,
  gridHeight: number,
  gridWidth: number,
): AttentionMaps {
  const patches = gridHeight * gridWidth;
  if (attention.length !== heads * (patches + 1)) {
    throw new RangeError(
      `attention: ${attention.length} values for ${heads} heads over ${gridHeight}×${gridWidth} patches`,
    );
  }
  const maps = new Float32Array(heads * patches);
  for (let h = 0; h < heads; h++) {
    maps.set(attention.subarray(h * (patches + 1) + 1, (h + 1) * (patches + 1)), h * patches);
  }
  return { heads, gridHeight, gridWidth, maps };
}

/**
 * Patches that together hold at least `share` of each head's attention over patches, the strongest first: in ascending
 * order, those whose running sum exceeds 1 − share.
 *
 * @example Half of what one head attends to
 * ```ts
 * import { attentionMaps, massMasks, scoreForeground } from "../../../mod.ts";
 *
 * const maps = attentionMaps(Float32Array.of(0.2, 0.1, 0.5, 0.1, 0.1), 1, 2, 2); // [CLS] had 0.2 itself
 * const mask = massMasks(maps, 0.5);
 * console.log([...mask], scoreForeground(mask, [0, 1, 0, 0]).best); // [0, 1, 0, 0] 1
 * ```
 *
 * @returns [heads, gridHeight, gridWidth] of 0 and 1
 * @throws {RangeError} unless 0 < share ≤ 1
 */
export function massMasks({ heads, gridHeight, gridWidth, maps }: AttentionMaps, share: number): Uint8Array {
  if (!(share > 0 && share <= 1)) throw new RangeError(`attention: share ${share} is not between 0 and 1`);
  const patches = gridHeight * gridWidth;
  const masks = new Uint8Array(heads * patches);
  for (let h = 0; h < heads; h++) {
    const map = maps.subarray(h * patches, (h + 1) * patches);
    const order = Uint32Array.from(map.keys()).sort((a, b) => map[a] - map[b] || a - b);
    const total = map.reduce((a, b) => a + b, 0);
    let sum = 0;
    for (const patch of order) {
      sum += map[patch] / total;
      if (sum > 1 - share) masks[h * patches + patch] = 1;
    }
  }
  return masks;
}

/**
 * Every cell repeated `factor` times in both directions.
 *
 * @param maps [planes, height, width]
 * @returns [planes, height · factor, width · factor]
 */
export function upsampleNearest<T extends Float32Array | Uint8Array>(
  maps: T,
  height: number,
  width: number,
  factor: number,
): T {
  const planes = maps.length / (height * width);
  const [H, W] = [height * factor, width * factor];
  const up = (maps instanceof Uint8Array ? new Uint8Array(planes * H * W) : new Float32Array(planes * H * W)) as T;
  for (let i = 0; i < planes; i++) {
    for (let y = 0; y < H; y++) {
      const row = (i * height + Math.floor(y / factor)) * width;
      for (let x = 0; x < W; x++) up[(i * H + y) * W + x] = maps[row + Math.floor(x / factor)];
    }
  }
  return up;
}

/** |A ∩ B| / |A ∪ B| of masks of one size, any value but 0 counting as inside; 1 if both are empty. */
export function jaccard(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new RangeError(`jaccard: masks of ${a.length} and of ${b.length} pixels`);
  let both = 0, either = 0;
  for (let i = 0; i < a.length; i++) {
    if (a[i] && b[i]) both++;
    if (a[i] || b[i]) either++;
  }
  return either === 0 ? 1 : both / either;
}

/** How well the heads of one image, or of the mean over images, cover a given foreground. */
export interface ForegroundScore {
  /** Jaccard of each head. */
  readonly heads: readonly number[];
  /** The best head of this image. */
  readonly best: number;
  /** Mean over heads. */
  readonly mean: number;
}

/** Scores the masks of one image's heads, [heads, pixels], against a foreground of the same size. */
export function scoreForeground(masks: Uint8Array, foreground: ArrayLike<number>): ForegroundScore {
  const pixels = foreground.length;
  const heads = Array.from(
    { length: masks.length / pixels },
    (_, h) => jaccard(masks.subarray(h * pixels, (h + 1) * pixels), foreground),
  );
  return { heads, best: Math.max(...heads), mean: heads.reduce((a, b) => a + b, 0) / heads.length };
}
