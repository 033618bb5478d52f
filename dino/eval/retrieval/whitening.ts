// PCA whitening of descriptors, learned on a set of its own.

import type { Backend } from "../../../models/graph/backend.ts";
import { matmul } from "../../../models/graph/ops/matmul.ts";
import { Program } from "../../../models/graph/program.ts";
import { tensor } from "../../../models/graph/tensor.ts";
import { symmetricEigen } from "../symmetric_eigen.ts";

/** How a whitening is learned; the defaults are the reference's. */
export interface WhiteningOptions {
  /**
   * Whether the covariance is of centred features. The reference diagonalises the raw second moment, although it centres
   * what is whitened: published numbers depend on it.
   */
  readonly centered?: boolean;
  /** Eigenvalues are divided out to this power; 0.5 makes variances 1. */
  readonly power?: number;
  /** Eigenvalues below this share of the largest are raised to it. */
  readonly floor?: number;
  /** Components kept; all of them by default. */
  readonly components?: number;
}

/** A learned whitening: y = rows · (x − mean). */
export interface Whitening {
  /** Of what is whitened. */
  readonly dim: number;
  /** [dim] */
  readonly mean: Float64Array;
  /** [dim, dim]: the matrix that was diagonalised. */
  readonly covariance: Float64Array;
  /** [components, dim]: eigenvector i / eigenvalue i ^ power, by descending eigenvalue. */
  readonly rows: Float64Array;
  /** Rows that are kept. */
  readonly components: number;
}

/** Rows a device multiplies at once while the covariance is summed: their sums are carried on in float64. */
const CHUNK = 1024;

/**
 * Learns a whitening.
 *
 * @param features [n, dim]
 * @throws {RangeError} if there are no features, or all of them are zero
 */
export async function learnWhitening(
  backend: Backend,
  features: Float32Array,
  dim: number,
  { centered = false, power = 0.5, floor = 1e-5, components = dim }: WhiteningOptions = {},
): Promise<Whitening> {
  const n = features.length / dim;
  if (!(n >= 1)) throw new RangeError("whitening: no features to learn from");
  if (!(components >= 1 && components <= dim)) throw new RangeError(`whitening: ${components} of ${dim} components`);
  const mean = new Float64Array(dim);
  for (let i = 0; i < features.length; i++) mean[i % dim] += features[i] / n;
  const covariance = await secondMoment(backend, features, dim);
  if (centered) {
    for (let i = 0; i < dim; i++) for (let j = 0; j < dim; j++) covariance[i * dim + j] -= mean[i] * mean[j];
  }
  const { values, vectors } = symmetricEigen(covariance, dim);
  if (!(values[0] > 0)) throw new RangeError("whitening: every feature is zero");
  const rows = vectors.slice(0, components * dim);
  for (let i = 0; i < components; i++) {
    const scale = Math.max(values[i], floor * values[0]) ** -power;
    for (let j = 0; j < dim; j++) rows[i * dim + j] *= scale;
  }
  return { dim, mean, covariance, rows, components };
}

/** Σ x·xᵀ / n of rows x, [dim, dim]. */
async function secondMoment(backend: Backend, features: Float32Array, dim: number): Promise<Float64Array> {
  const n = features.length / dim;
  const chunk = Math.min(CHUNK, n);
  const p = new Program("second moment");
  const x = tensor("features", [chunk, dim], "input");
  const moment = tensor("moment", [dim, dim], "output");
  matmul(p, x, x, { transA: true, into: moment });
  const executable = await backend.compile(p);
  const sum = new Float64Array(dim * dim);
  const padded = new Float32Array(chunk * dim);
  for (let start = 0; start < n; start += chunk) {
    const part = features.subarray(start * dim, Math.min(start + chunk, n) * dim);
    padded.fill(0);
    padded.set(part);
    backend.write(x, padded);
    await executable.run();
    const here = await backend.read(moment) as Float32Array;
    for (let i = 0; i < sum.length; i++) sum[i] += here[i] / n;
  }
  executable.dispose();
  backend.free(x, moment);
  return sum;
}

/**
 * Whitened rows, [n, components], not normalised.
 *
 * @param features [n, dim]
 */
export async function whiten(backend: Backend, features: Float32Array, whitening: Whitening): Promise<Float32Array> {
  const { dim, mean, rows, components } = whitening;
  const n = features.length / dim;
  const chunk = Math.min(CHUNK, n);
  const p = new Program("whiten");
  const x = tensor("features", [chunk, dim], "input");
  const matrix = tensor("whitening", [components, dim], "input");
  const y = tensor("whitened", [chunk, components], "output");
  matmul(p, x, matrix, { transB: true, into: y });
  const executable = await backend.compile(p);
  backend.write(matrix, Float32Array.from(rows));
  const result = new Float32Array(n * components);
  const centered = new Float32Array(chunk * dim);
  for (let start = 0; start < n; start += chunk) {
    const count = Math.min(chunk, n - start);
    centered.fill(0);
    for (let i = 0; i < count * dim; i++) centered[i] = features[start * dim + i] - mean[i % dim];
    backend.write(x, centered);
    await executable.run();
    const here = await backend.read(y) as Float32Array;
    result.set(here.subarray(0, count * components), start * components);
  }
  executable.dispose();
  backend.free(x, matrix, y);
  return result;
}
