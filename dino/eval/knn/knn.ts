// Weighted k-nearest-neighbour classification of frozen features, as the DINO release evaluates them.

/** Features of images, one row each, and their classes. */
export interface LabelledFeatures {
  /** [n, dim], not necessarily normalised. */
  readonly features: Float32Array;
  /** [n], 0 … classes − 1. */
  readonly labels: ArrayLike<number>;
  /** Width of a row. */
  readonly dim: number;
}

/** The `k` nearest rows of a database to each query, nearest first. */
export interface Neighbours {
  /** Neighbours of a query. */
  readonly k: number;
  /** [queries, k] cosine similarities. */
  readonly similarities: Float32Array;
  /** [queries, k] rows of the database. */
  readonly indices: Int32Array;
}

/**
 * Finds nearest rows by dot product; a backend may bring a faster one.
 *
 * @param queries [n, dim], rows of length 1
 * @param database [m, dim], rows of length 1
 */
export type NeighbourSearch = (
  queries: Float32Array,
  database: Float32Array,
  dim: number,
  k: number,
) => Neighbours | Promise<Neighbours>;

/** Accuracy at one k, in percent. */
export interface KnnAccuracy {
  /** Neighbours that voted. */
  readonly k: number;
  /** Percent of images whose class got the most votes. */
  readonly top1: number;
  /** A class counts among the first five only if it received a vote. */
  readonly top5: number;
  /** The first five with classes without votes ordered by their number, as the reference happens to count few classes. */
  readonly top5Stable: number;
}

/** How {@linkcode evaluateKnn} votes. */
export interface KnnOptions {
  /** Neighbours to try. */
  readonly ks?: readonly number[];
  /** A neighbour of similarity s votes with exp(s / temperature). */
  readonly temperature?: number;
  /** Finds the neighbours; by default on the host. */
  readonly search?: NeighbourSearch;
}

/** Accuracies, and what had to be changed to get them. */
export interface KnnResult {
  /** One entry for each k, in the order given. */
  readonly accuracies: readonly KnnAccuracy[];
  /** Sentences on every k that was lowered. */
  readonly notices: readonly string[];
}

/**
 * Classifies `test` by the vote of its nearest neighbours in `train`, for several k.
 *
 * A k larger than the training set is lowered to it, with a notice. Any number of classes and of images will do.
 *
 * @example Four known images vote on two
 * ```ts
 * import { evaluateKnn } from "../../../mod.ts";
 *
 * const known = { features: Float32Array.of(1, 0, 0.9, 0.1, 0, 1, 0.1, 0.9), labels: [0, 0, 1, 1], dim: 2 };
 * const asked = { features: Float32Array.of(1, 0.2, 0.3, 1), labels: [0, 1], dim: 2 };
 * const { accuracies: [{ top1 }] } = await evaluateKnn(known, asked, { ks: [2] });
 * console.log(top1); // 100
 * ```
 *
 * @throws {RangeError} if either set is empty, or the widths differ
 */
export async function evaluateKnn(
  train: LabelledFeatures,
  test: LabelledFeatures,
  { ks = [10, 20, 100, 200], temperature = 0.07, search = searchNeighbours }: KnnOptions = {},
): Promise<KnnResult> {
  if (train.dim !== test.dim) {
    throw new RangeError(`knn: features of ${train.dim} and of ${test.dim} cannot be compared`);
  }
  for (const [name, set] of Object.entries({ train, test })) {
    if (set.labels.length === 0) throw new RangeError(`knn: the ${name} set has no images`);
    if (set.features.length !== set.labels.length * set.dim) {
      throw new RangeError(`knn: ${set.features.length / set.dim} ${name} features for ${set.labels.length} labels`);
    }
  }
  const size = train.labels.length;
  const notices = ks.filter((k) => k > size).map((k) => `k = ${k} lowered to the ${size} images there are`);
  const clipped = [...new Set(ks.map((k) => Math.min(k, size)))];
  const classes = 1 + Math.max(largest(train.labels), largest(test.labels));
  const neighbours = await search(
    normalizeRows(test.features, test.dim),
    normalizeRows(train.features, train.dim),
    train.dim,
    Math.max(...clipped),
  );
  const accuracies = clipped.map((k) => {
    const scores = voteKnn(neighbours, train.labels, classes, k, temperature);
    return knnAccuracy(scores, test.labels, classes, k);
  });
  return { accuracies, notices };
}

/** Rows scaled to length 1; a row of zeros stays so. */
export function normalizeRows(features: Float32Array, dim: number): Float32Array {
  const rows = new Float32Array(features.length);
  for (let at = 0; at < features.length; at += dim) {
    let sum = 0;
    for (let i = at; i < at + dim; i++) sum += features[i] * features[i];
    const scale = 1 / Math.max(Math.sqrt(sum), 1e-12); // PyTorch's floor in normalize()
    for (let i = at; i < at + dim; i++) rows[i] = features[i] * scale;
  }
  return rows;
}

/** Every dot product, on the host. Equal similarities are ordered by row. */
export function searchNeighbours(queries: Float32Array, database: Float32Array, dim: number, k: number): Neighbours {
  const count = queries.length / dim;
  const size = database.length / dim;
  const row = new Float32Array(size);
  const found = emptyNeighbours(count, k);
  for (let q = 0; q < count; q++) {
    for (let r = 0; r < size; r++) {
      // Four partial sums: one chain of additions would wait for each of them.
      let [a, b, c, d] = [0, 0, 0, 0];
      const [x, y] = [q * dim, r * dim];
      let i = 0;
      for (; i + 3 < dim; i += 4) {
        a += queries[x + i] * database[y + i];
        b += queries[x + i + 1] * database[y + i + 1];
        c += queries[x + i + 2] * database[y + i + 2];
        d += queries[x + i + 3] * database[y + i + 3];
      }
      for (; i < dim; i++) a += queries[x + i] * database[y + i];
      row[r] = a + b + (c + d);
    }
    selectNeighbours(row, found, q);
  }
  return found;
}

/** Neighbours of `count` queries, to be filled by {@linkcode selectNeighbours}. */
export function emptyNeighbours(count: number, k: number): Neighbours {
  return { k, similarities: new Float32Array(count * k), indices: new Int32Array(count * k) };
}

/**
 * Writes the k largest of `row` as query `q` of `into`, largest first; of equal ones the earlier row comes first.
 *
 * @param row [database rows] similarities of one query
 */
export function selectNeighbours(row: Float32Array, into: Neighbours, q: number): void {
  const { k, similarities, indices } = into;
  const at = q * k;
  // A binary heap with the worst of the chosen at its root: most rows are rejected by one comparison.
  const values = similarities.subarray(at, at + k);
  const places = indices.subarray(at, at + k);
  const worse = (i: number, j: number) => values[i] < values[j] || values[i] === values[j] && places[i] > places[j];
  const swap = (i: number, j: number) => {
    [values[i], values[j]] = [values[j], values[i]];
    [places[i], places[j]] = [places[j], places[i]];
  };
  const sink = (i: number, n: number) => {
    for (;;) {
      let worst = i;
      for (const child of [2 * i + 1, 2 * i + 2]) if (child < n && worse(child, worst)) worst = child;
      if (worst === i) return;
      swap(i, worst);
      i = worst;
    }
  };
  for (let r = 0; r < k; r++) [values[r], places[r]] = [row[r], r];
  for (let i = k >> 1; i-- > 0;) sink(i, k);
  for (let r = k; r < row.length; r++) {
    if (row[r] <= values[0]) continue;
    [values[0], places[0]] = [row[r], r];
    sink(0, k);
  }
  for (let n = k - 1; n > 0; n--) {
    swap(0, n);
    sink(0, n);
  }
}

/**
 * Class scores: the sum of exp(similarity / temperature) over the neighbours of that class.
 *
 * @returns [queries, classes]
 */
export function voteKnn(
  neighbours: Neighbours,
  labels: ArrayLike<number>,
  classes: number,
  k: number,
  temperature: number,
): Float64Array {
  const count = neighbours.indices.length / neighbours.k;
  const scores = new Float64Array(count * classes);
  for (let q = 0; q < count; q++) {
    for (let n = 0; n < k; n++) {
      const at = q * neighbours.k + n;
      const label = labels[neighbours.indices[at]];
      scores[q * classes + label] += Math.exp(neighbours.similarities[at] / temperature);
    }
  }
  return scores;
}

/** How often the true class has the highest score, and is among the min(5, k) highest. */
export function knnAccuracy(
  scores: Float64Array,
  labels: ArrayLike<number>,
  classes: number,
  k: number,
): KnnAccuracy {
  const hits = { top1: 0, top5: 0, top5Stable: 0 };
  for (let q = 0; q < labels.length; q++) {
    const mine = scores[q * classes + labels[q]];
    let before = 0;
    for (let c = 0; c < classes; c++) {
      const other = scores[q * classes + c];
      if (other > mine || other === mine && c < labels[q]) before++;
    }
    if (before === 0) hits.top1++;
    if (before < Math.min(5, k)) {
      hits.top5Stable++;
      if (mine > 0) hits.top5++;
    }
  }
  const percent = 100 / labels.length;
  return { k, top1: hits.top1 * percent, top5: hits.top5 * percent, top5Stable: hits.top5Stable * percent };
}

/** The class with the highest score for each query; of equal ones the first. */
export function knnPredictions(scores: Float64Array, classes: number): Int32Array {
  return Int32Array.from({ length: scores.length / classes }, (_, q) => {
    const row = scores.subarray(q * classes, (q + 1) * classes);
    return row.indexOf(row.reduce((a, b) => Math.max(a, b)));
  });
}

function largest(values: ArrayLike<number>): number {
  let max = 0;
  for (let i = 0; i < values.length; i++) max = Math.max(max, values[i]);
  return max;
}
