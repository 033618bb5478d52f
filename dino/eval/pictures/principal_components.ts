// Principal components of feature rows, in float64 on the host.

import { symmetricEigen } from "../symmetric_eigen.ts";

/**
 * Rows centred and turned onto the directions of largest variance; each direction points to where its largest entry is
 * positive, so that the result does not depend on the solver.
 *
 * @param features [n, dim]
 * @returns [n, components], by descending variance
 */
export function principalComponents(features: Float32Array, dim: number, components: number): Float32Array {
  const n = features.length / dim;
  if (!(components >= 1 && components <= dim)) throw new RangeError(`components: ${components} of ${dim}`);
  const mean = new Float64Array(dim);
  for (let i = 0; i < features.length; i++) mean[i % dim] += features[i] / n;
  const covariance = new Float64Array(dim * dim);
  const row = new Float64Array(dim);
  for (let at = 0; at < features.length; at += dim) {
    for (let d = 0; d < dim; d++) row[d] = features[at + d] - mean[d];
    for (let a = 0; a < dim; a++) {
      const v = row[a] / n;
      for (let b = 0; b <= a; b++) covariance[a * dim + b] += v * row[b];
    }
  }
  const { vectors } = symmetricEigen(covariance, dim);
  const projected = new Float32Array(n * components);
  for (let c = 0; c < components; c++) {
    const vector = vectors.subarray(c * dim, (c + 1) * dim);
    const peak = vector.reduce((a, v) => Math.abs(v) > Math.abs(a) ? v : a, 0);
    for (let i = 0; i < n; i++) {
      let dot = 0;
      for (let d = 0; d < dim; d++) dot += (features[i * dim + d] - mean[d]) * vector[d];
      projected[i * components + c] = peak < 0 ? -dot : dot;
    }
  }
  return projected;
}
