// Eigenvalues and eigenvectors of a symmetric matrix, in float64: reduction to three diagonals, then implicit QL.

/** Eigenvalues in descending order, and for each the eigenvector of length 1. */
export interface SymmetricEigen {
  /** [n] */
  readonly values: Float64Array;
  /** [n, n]: row i belongs to `values[i]`; its sign is arbitrary. */
  readonly vectors: Float64Array;
}

/** QL converges in two or three rounds an eigenvalue; more means the matrix was not finite. */
const MAX_ROUNDS = 60;

/**
 * Decomposes a symmetric matrix. Takes about 3·n³ multiplications: some seconds at n = 768, half a minute at 1536.
 *
 * @param matrix [n, n], of which the lower triangle is read
 * @throws {RangeError} if it holds NaN or infinities
 */
export function symmetricEigen(matrix: Float64Array, n: number): SymmetricEigen {
  if (!matrix.every(Number.isFinite)) throw new RangeError("eigenvectors: the matrix holds NaN or infinite elements");
  // What rounding leaves of a matrix of low rank is no part of it: it would shrink from row to row until squares vanish, and
  // each round among large eigenvalues would write it anew.
  const negligible = Number.EPSILON * matrix.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  const { diagonal, beside, reflections } = tridiagonalize(matrix, n, negligible);
  const vectors = basisOf(reflections, n);
  implicitQl(diagonal, beside, vectors, n, negligible);
  const order = Array.from(diagonal.keys()).sort((a, b) => diagonal[b] - diagonal[a]);
  const sorted = new Float64Array(n * n);
  order.forEach((from, to) => sorted.set(vectors.subarray(from * n, (from + 1) * n), to * n));
  return { values: Float64Array.from(order, (i) => diagonal[i]), vectors: sorted };
}

/** A reflection I − v·vᵀ·(2 / vᵀv) that acts on the elements from `start` on. */
interface Reflection {
  start: number;
  v: Float64Array;
  scale: number;
}

/** Householder reflections P with PᵀAP tridiagonal. */
function tridiagonalize(matrix: Float64Array, n: number, negligible: number) {
  // A symmetric working copy: rows are then columns, and every loop below runs along rows.
  const a = new Float64Array(n * n);
  for (let i = 0; i < n; i++) for (let j = 0; j <= i; j++) a[i * n + j] = a[j * n + i] = matrix[i * n + j];
  const diagonal = new Float64Array(n), beside = new Float64Array(n);
  const reflections: Reflection[] = [];
  const w = new Float64Array(n);
  for (let k = 0; k < n; k++) {
    diagonal[k] = a[k * n + k];
    if (k === n - 1) break;
    const m = n - k - 1;
    const v = a.slice(k * n + k + 1, (k + 1) * n);
    const norm = lengthOf(v);
    const alpha = v[0] > 0 ? -norm : norm;
    beside[k] = alpha;
    if (m === 1) {
      beside[k] = v[0];
      continue;
    }
    if (norm <= negligible) {
      beside[k] = 0;
      continue;
    }
    v[0] -= alpha;
    let vv = 0;
    for (let i = 0; i < m; i++) vv += v[i] * v[i];
    const scale = 2 / vv;
    reflections.push({ start: k + 1, v, scale });
    // A ← A − v·wᵀ − w·vᵀ with w = scale·(A·v) − (scale²/2)(vᵀA·v)·v, on the trailing block.
    let vw = 0;
    for (let i = 0; i < m; i++) {
      const row = (k + 1 + i) * n + k + 1;
      let s = 0;
      for (let j = 0; j < m; j++) s += a[row + j] * v[j];
      w[i] = scale * s;
      vw += v[i] * w[i];
    }
    const half = scale * vw / 2;
    for (let i = 0; i < m; i++) w[i] -= half * v[i];
    for (let i = 0; i < m; i++) {
      const row = (k + 1 + i) * n + k + 1, vi = v[i], wi = w[i];
      for (let j = 0; j < m; j++) a[row + j] -= vi * w[j] + wi * v[j];
    }
  }
  return { diagonal, beside, reflections };
}

/** Length of a vector, scaled by its largest element so that squares neither overflow nor vanish. */
function lengthOf(v: Float64Array): number {
  const max = v.reduce((a, x) => Math.max(a, Math.abs(x)), 0);
  return max > 0 ? max * Math.sqrt(v.reduce((a, x) => a + (x / max) ** 2, 0)) : 0;
}

/** The orthogonal matrix of all reflections, transposed: row i is the i-th basis vector. */
function basisOf(reflections: readonly Reflection[], n: number): Float64Array {
  const q = new Float64Array(n * n);
  for (let i = 0; i < n; i++) q[i * n + i] = 1;
  // Q = H₁H₂…, built from the last on, so that each reflection meets only the block it has touched. Q's transpose is
  // what is kept: row r of it is column r of Q, and H·Q reflects each column.
  for (let r = reflections.length - 1; r >= 0; r--) {
    const { start, v, scale } = reflections[r];
    for (let column = start; column < n; column++) {
      const at = column * n + start;
      let dot = 0;
      for (let i = 0; i < v.length; i++) dot += v[i] * q[at + i];
      if (dot === 0) continue;
      dot *= scale;
      for (let i = 0; i < v.length; i++) q[at + i] -= dot * v[i];
    }
  }
  return q;
}

/** QL rounds with Wilkinson's shift; rows of `vectors` turn along. */
function implicitQl(d: Float64Array, e: Float64Array, vectors: Float64Array, n: number, negligible: number): void {
  for (let l = 0; l < n; l++) {
    for (let round = 0;; round++) {
      let m = l;
      for (; m < n - 1; m++) {
        const size = Math.abs(d[m]) + Math.abs(d[m + 1]);
        if (Math.abs(e[m]) <= Math.max(Number.EPSILON * size, negligible)) break;
      }
      if (m === l) break;
      if (round === MAX_ROUNDS) throw new RangeError(`eigenvectors: no convergence in ${MAX_ROUNDS} rounds`);
      let g = (d[l + 1] - d[l]) / (2 * e[l]);
      let r = Math.hypot(g, 1);
      g = d[m] - d[l] + e[l] / (g + (g >= 0 ? r : -r));
      let [s, c, p] = [1, 1, 0];
      let i = m - 1;
      for (; i >= l; i--) {
        const f = s * e[i], b = c * e[i];
        r = Math.hypot(f, g);
        e[i + 1] = r;
        if (r === 0) { // a rotation that is not needed splits the matrix here
          d[i + 1] -= p;
          e[m] = 0;
          break;
        }
        s = f / r;
        c = g / r;
        g = d[i + 1] - p;
        r = (d[i] - g) * s + 2 * c * b;
        p = s * r;
        d[i + 1] = g + p;
        g = c * r - b;
        rotateRows(vectors, i * n, (i + 1) * n, n, c, s);
      }
      if (r === 0 && i >= l) continue;
      d[l] -= p;
      e[l] = g;
      e[m] = 0;
    }
  }
}

function rotateRows(q: Float64Array, first: number, second: number, n: number, c: number, s: number): void {
  for (let k = 0; k < n; k++) {
    const a = q[first + k], b = q[second + k];
    q[second + k] = s * a + c * b;
    q[first + k] = c * a - s * b;
  }
}
