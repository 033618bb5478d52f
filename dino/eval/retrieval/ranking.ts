// Average precision of a ranking, as the retrieval benchmarks count it.

/**
 * Average precision by the trapezoidal rule: each positive adds the mean of the precision just before and just after it.
 *
 * @param positions of the positives found, 0-based, ascending
 * @param positives how many there are in all, found or not
 */
export function averagePrecision(positions: ArrayLike<number>, positives: number): number {
  let sum = 0;
  for (let j = 0; j < positions.length; j++) {
    const before = positions[j] === 0 ? 1 : j / positions[j];
    const after = (j + 1) / (positions[j] + 1);
    sum += (before + after) / 2;
  }
  return sum / positives;
}

/** Database rows by decreasing similarity; equal ones by row. */
export function rankRows(similarities: ArrayLike<number>): Int32Array {
  const order = Int32Array.from({ length: similarities.length }, (_, i) => i);
  return order.sort((a, b) => similarities[b] - similarities[a] || a - b);
}
