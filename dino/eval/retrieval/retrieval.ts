// Revisited Oxford and Paris: mean average precision and precision at k, easy, medium and hard.

import { averagePrecision } from "./ranking.ts";

/** What is right and wrong for a query: rows of the database. */
export interface RetrievalTruth {
  /** Rows that are easy to find. */
  readonly easy: readonly number[];
  /** Rows that are hard to find. */
  readonly hard: readonly number[];
  /** Neither right nor wrong: taken out of the ranking. */
  readonly junk: readonly number[];
}

/** The three protocols: which images count as right, which are taken out. */
export const PROTOCOLS = {
  easy: { positives: ["easy"], ignored: ["junk", "hard"] },
  medium: { positives: ["easy", "hard"], ignored: ["junk"] },
  hard: { positives: ["hard"], ignored: ["junk", "easy"] },
} as const;

/** A protocol's name. */
export type Protocol = keyof typeof PROTOCOLS;

/** Scores of one protocol, each in 0 … 1. */
export interface RetrievalScore {
  /** Mean of `averagePrecision` over the queries with positives; NaN if no query has any. */
  readonly meanAveragePrecision: number;
  /** Of each query; NaN for one without positives. */
  readonly averagePrecision: readonly number[];
  /** Mean precision at each k. */
  readonly meanPrecisionAt: readonly number[];
  /** [queries][ks]; NaN for a query without positives. */
  readonly precisionAt: readonly (readonly number[])[];
}

/**
 * Scores rankings.
 *
 * @example One query, whose second find is right
 * ```ts
 * import { scoreRetrieval } from "../../../mod.ts";
 *
 * const { meanAveragePrecision } = scoreRetrieval([[3, 1, 0, 2]], [{ easy: [1], hard: [], junk: [0] }], "easy");
 * console.log(meanAveragePrecision); // 0.25: trapezoids of the published protocol
 * ```
 *
 * @param rankings for each query, database rows by decreasing similarity
 * @param ks k of precision at k; where the last positive comes earlier, precision is taken there
 * @throws {RangeError} if the numbers of rankings and of truths differ, or a truth names a row that is not ranked
 */
export function scoreRetrieval(
  rankings: readonly ArrayLike<number>[],
  truths: readonly RetrievalTruth[],
  protocol: Protocol,
  ks: readonly number[] = [1, 5, 10],
): RetrievalScore {
  if (rankings.length !== truths.length) {
    throw new RangeError(`retrieval: ${rankings.length} rankings for a ground truth of ${truths.length} queries`);
  }
  const { positives, ignored } = PROTOCOLS[protocol];
  const perQuery = rankings.map((ranking, q) => {
    const truth = truths[q];
    const right = new Set(positives.flatMap((name) => truth[name]));
    const skipped = new Set(ignored.flatMap((name) => truth[name]));
    return scoreQuery(ranking, right, skipped, ks, q);
  });
  const counted = perQuery.filter(({ ap }) => !Number.isNaN(ap));
  const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  return {
    meanAveragePrecision: mean(counted.map(({ ap }) => ap)),
    averagePrecision: perQuery.map(({ ap }) => ap),
    meanPrecisionAt: ks.map((_, i) => mean(counted.map(({ precision }) => precision[i]))),
    precisionAt: perQuery.map(({ precision }) => precision),
  };
}

function scoreQuery(
  ranking: ArrayLike<number>,
  right: ReadonlySet<number>,
  skipped: ReadonlySet<number>,
  ks: readonly number[],
  query: number,
): { ap: number; precision: number[] } {
  if (right.size === 0) return { ap: NaN, precision: ks.map(() => NaN) };
  const positions: number[] = [];
  let position = 0;
  for (let i = 0; i < ranking.length; i++) {
    if (skipped.has(ranking[i])) continue;
    if (right.has(ranking[i])) positions.push(position);
    position++;
  }
  if (positions.length !== right.size) {
    throw new RangeError(
      `retrieval: query ${query} has ${right.size} positives, of which ${positions.length} are ranked: ` +
        "the ground truth is of another database",
    );
  }
  const last = positions.at(-1)! + 1;
  const precision = ks.map((k) => {
    const depth = Math.min(k, last);
    return positions.filter((at) => at < depth).length / depth;
  });
  return { ap: averagePrecision(positions, right.size), precision };
}
