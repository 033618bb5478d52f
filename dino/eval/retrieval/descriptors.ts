// Image descriptors made of tokens: generalised-mean pooling, R-MAC, and the mean over scales.

/** How far GeM sharpens: 1 averages, infinity takes the maximum. */
export const GEM_POWER = 4;

/** Tokens are clamped here before the power, so that negative ones count as nothing. */
export const GEM_FLOOR = 1e-6;

/**
 * Generalised mean of the patch tokens of one image.
 *
 * @param tokens [1 + patches, dim], [CLS] first
 * @returns [dim]
 */
export function gemPool(tokens: Float32Array, dim: number, power: number = GEM_POWER): Float32Array {
  const patches = tokens.length / dim - 1;
  const pooled = new Float64Array(dim);
  for (let at = dim; at < tokens.length; at += dim) {
    for (let d = 0; d < dim; d++) pooled[d] += Math.max(tokens[at + d], GEM_FLOOR) ** power;
  }
  return Float32Array.from(pooled, (sum) => (sum / patches) ** (1 / power));
}

/** [CLS] followed by the GeM of the patches, [2 · dim]: the descriptor of copy detection. */
export function clsAndGem(tokens: Float32Array, dim: number, power: number = GEM_POWER): Float32Array {
  const descriptor = new Float32Array(2 * dim);
  descriptor.set(tokens.subarray(0, dim));
  descriptor.set(gemPool(tokens, dim, power), dim);
  return descriptor;
}

/**
 * R-MAC: maxima over square regions at several scales that overlap by about 40 %, each of length 1, summed, of length 1.
 *
 * @param tokens [1 + gridH · gridW, dim], [CLS] first
 * @param levels scales: level l has regions of side 2 · min(grid) / (l + 1)
 */
export function rmac(tokens: Float32Array, dim: number, gridH: number, gridW: number, levels = 3): Float32Array {
  const sum = new Float64Array(dim);
  for (const { top, left, height, width } of rmacRegions(gridH, gridW, levels)) {
    const max = new Float64Array(dim).fill(-Infinity);
    for (let y = top; y < top + height; y++) {
      for (let x = left; x < left + width; x++) {
        const at = (1 + y * gridW + x) * dim;
        for (let d = 0; d < dim; d++) if (tokens[at + d] > max[d]) max[d] = tokens[at + d];
      }
    }
    const length = Math.max(Math.hypot(...max), 1e-12);
    for (let d = 0; d < dim; d++) sum[d] += max[d] / length;
  }
  const length = Math.max(Math.hypot(...sum), 1e-12);
  return Float32Array.from(sum, (v) => v / length);
}

/** The whole grid, then squares of every level spread evenly over it. */
export function rmacRegions(
  gridH: number,
  gridW: number,
  levels: number,
): { top: number; left: number; height: number; width: number }[] {
  const shorter = Math.min(gridH, gridW), longer = Math.max(gridH, gridW);
  const regions = [{ top: 0, left: 0, height: gridH, width: gridW }];
  // As many squares along the longer side as come nearest to an overlap of 40 %.
  let extra = 0, nearest = Infinity;
  for (let n = 1; n <= 6; n++) {
    const overlap = (shorter * shorter - shorter * (longer - shorter) / n) / (shorter * shorter);
    if (Math.abs(overlap - 0.4) < nearest) [nearest, extra] = [Math.abs(overlap - 0.4), n];
  }
  if (longer === shorter) extra = 0;
  for (let level = 1; level <= levels; level++) {
    const side = Math.max(1, Math.floor(2 * shorter / (level + 1)));
    const along = (extent: number, count: number) =>
      Array.from({ length: count }, (_, i) => count === 1 ? 0 : Math.floor((extent - side) * i / (count - 1)));
    const rows = along(gridH, level + (gridH > gridW ? extra : 0));
    const columns = along(gridW, level + (gridW > gridH ? extra : 0));
    for (const top of rows) for (const left of columns) regions.push({ top, left, height: side, width: side });
  }
  return regions;
}

/** Scales of the retrieval evaluation. */
export const RETRIEVAL_SCALES: readonly number[] = [1, Math.SQRT1_2, 0.5];

/**
 * Mean of the descriptors of one image at several scales, of length 1. They are not normalised before.
 *
 * @param atScales [dim] each
 */
export function meanOverScales(atScales: readonly Float32Array[]): Float32Array {
  const sum = new Float64Array(atScales[0].length);
  for (const descriptor of atScales) for (let d = 0; d < sum.length; d++) sum[d] += descriptor[d] / atScales.length;
  const length = Math.hypot(...sum);
  return Float32Array.from(sum, (v) => v / length);
}
