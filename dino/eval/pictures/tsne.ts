// t-SNE from npm, with the types used here and a start that does not depend on chance.

import { principalComponents } from "./principal_components.ts";

/** How a map is made; the defaults are those of the paper's map of classes, but for the learning rate of few rows. */
export interface TsneOptions {
  /** Neighbours that each point keeps near, roughly. */
  readonly perplexity?: number;
  /** Default 200, less below a thousand rows: a fifth of their number, at least 10. */
  readonly learningRate?: number;
  /** Steps of the descent. */
  readonly iterations?: number;
  /** Principal components that distances are taken in. */
  readonly components?: number;
  /** Told after each. */
  readonly onIteration?: (iteration: number) => void;
}

interface Embedding {
  initDataRaw(rows: number[][]): void;
  step(): number;
  getSolution(): number[][];
  Y: number[][];
}

/** Spread of the starting positions: small beside the map that grows out of them. */
const START_SPREAD = 1e-4;

/**
 * Places rows on a plane so that near ones stay near. Takes memory and time for every pair: up to a few thousand rows.
 *
 * @param features [n, dim]
 * @returns [n, 2]
 * @throws {RangeError} if there are fewer than three rows
 */
export async function tsneMap(
  features: Float32Array,
  dim: number,
  { perplexity = 20, learningRate, iterations = 500, components = 30, onIteration = () => {} }: TsneOptions = {},
): Promise<Float32Array> {
  const n = features.length / dim;
  if (n < 3) throw new RangeError(`t-SNE: ${n} images: a map wants at least three`);
  const kept = Math.min(components, dim, n);
  const reduced = principalComponents(features, dim, kept); // [n, kept]
  const rows = Array.from({ length: n }, (_, i) => Array.from(reduced.subarray(i * kept, (i + 1) * kept)));
  const epsilon = learningRate ?? Math.min(200, Math.max(10, n / 5));
  const options = { perplexity: Math.min(perplexity, (n - 1) / 3), dim: 2, epsilon };
  const { TSNE } = await import("npm:@keckelt/tsne@1.0.2"); // only whoever draws a map loads it
  const embedding = new TSNE(options) as unknown as Embedding;
  embedding.initDataRaw(rows);
  // Its own start is random; the first two components give the same map every time.
  const spread = Math.sqrt(rows.reduce((sum, row) => sum + row[0] * row[0], 0) / n) || 1;
  embedding.Y = rows.map((row) => [row[0], row[1] ?? 0].map((v) => START_SPREAD * v / spread));
  for (let i = 1; i <= iterations; i++) {
    embedding.step();
    onIteration(i);
  }
  return Float32Array.from(embedding.getSolution().flat());
}
