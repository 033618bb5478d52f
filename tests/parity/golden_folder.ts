// Runs the cases of a golden folder on one backend.
import type { Backend } from "../../models/graph/backend.ts";
import { type Comparison, GoldenCase } from "./golden_case.ts";
import { KINDS } from "./kinds/mod.ts";

/**
 * What storing in f16 may add to an error, as a share of a result's largest value: a stored value is off by up to 2⁻¹¹ of itself, and
 * a result of two or three blocks, their gradients included, gathers fewer than ten such errors (measured: 9 at most).
 */
export const F16_SLACK = 16 * 2 ** -11;

/** Verdict on one case. */
export interface CaseResult {
  readonly name: string;
  readonly kind: string;
  readonly backend: string;
  readonly passed: boolean;
  readonly comparisons: number;
  /** The comparison closest to, or furthest beyond, its tolerance. */
  readonly worst?: Comparison;
  readonly failures: readonly Comparison[];
  readonly problem?: string;
}

/** An entry of index.json. */
export interface IndexEntry {
  readonly name: string;
  readonly kind: string;
}

/** Cases of a folder, by its index.json. Throws {Deno.errors.NotFound} or {SyntaxError} when there is none worth the name. */
export async function readIndex(folder: string, kinds?: readonly string[]): Promise<IndexEntry[]> {
  const index = JSON.parse(await Deno.readTextFile(`${folder}/index.json`));
  if (!Array.isArray(index?.cases)) throw new SyntaxError(`${folder}/index.json: no list "cases"`);
  const cases = index.cases as IndexEntry[];
  const absent = kinds?.filter((kind) => !cases.some((c) => c.kind === kind)) ?? [];
  if (absent.length) {
    throw new RangeError(
      `${folder} has no case of kind ${absent.join(", ")}: use ${[...new Set(cases.map((c) => c.kind))].join(", ")}`,
    );
  }
  return kinds ? cases.filter((c) => kinds.includes(c.kind)) : cases;
}

/**
 * Opens a case, computes it on `backend`, compares. Never throws for a case that is wrong: that is its verdict.
 *
 * @param slack share of a result's largest value that is allowed besides its float32 tolerance
 */
export async function runCase(
  folder: string,
  entry: IndexEntry,
  backend: Backend,
  slack = 0,
): Promise<CaseResult> {
  const kind = KINDS[entry.kind];
  const where = kind?.host ? "host" : backend.name;
  const base = { name: entry.name, kind: entry.kind, backend: where };
  const nothing = { comparisons: 0, failures: [], passed: false };
  if (!kind) return { ...base, ...nothing, problem: `kind ${entry.kind} is not known` };
  let golden: GoldenCase | undefined;
  try {
    golden = await GoldenCase.open(`${folder}/${entry.name}`, slack);
    await kind.run(golden, backend);
  } catch (error) {
    return { ...base, ...nothing, comparisons: golden?.comparisons.length ?? 0, problem: String(error) };
  }
  const failures = golden.comparisons.filter((c) => !c.passed);
  const missing = golden.missing();
  const problem = missing.length
    ? `not computed: ${missing.slice(0, 5).join(", ")}${missing.length > 5 ? ` and ${missing.length - 5} more` : ""}`
    : undefined;
  const passed = failures.length === 0 && missing.length === 0 && golden.comparisons.length > 0;
  return { ...base, passed, comparisons: golden.comparisons.length, worst: golden.worst(), failures, problem };
}
