// One case of a golden folder: its description, its tensors, and the verdict on what was computed.
import { openFileSource, readSafetensorsHeader, readTensorBytes } from "../../models/weights/safetensors.ts";
import { toFloat64 } from "../../models/weights/tensor_file.ts";

/** How a tensor is described in case.json. */
export interface TensorDescription {
  role: "input" | "param" | "output" | "grad" | "state" | "expected" | "sample";
  dtype: string;
  shape: number[];
  atol?: number | null;
  atol_float_implementation?: number;
  atol_without_excluded?: number;
  /** [first, past the last] of flattened elements that hold pure rounding noise. */
  exclude_from_comparison?: [number, number][];
}

/** A scalar in `expected`. */
export interface ExpectedScalar {
  f64?: number;
  value?: unknown;
  atol?: number;
  rtol?: number;
}

/** Outcome of one comparison. */
export interface Comparison {
  readonly name: string;
  readonly error: number;
  readonly tolerance: number;
  readonly passed: boolean;
  readonly note?: string;
}

/** Roles whose tensors are results. */
const RESULT_ROLES = new Set(["output", "grad", "state", "expected"]);

/** A float32 training run may leave isolated elements a little outside: this share of a tensor, this many times the tolerance. */
const ISOLATED = { share: 0.001, factor: 3 };

/** A case opened for comparison; every result it lists must be compared, or it fails. */
export class GoldenCase {
  readonly comparisons: Comparison[] = [];
  readonly #compared = new Set<string>();

  private constructor(
    readonly folder: string,
    readonly name: string,
    readonly kind: string,
    // deno-lint-ignore no-explicit-any
    readonly config: any,
    readonly tensors: Record<string, TensorDescription>,
    readonly expected: Record<string, ExpectedScalar>,
    readonly stored: ReadonlyMap<string, Float64Array>,
    readonly slack: number,
  ) {}

  /**
   * Reads case.json and tensors.safetensors.
   *
   * @param slack share of a result's largest value that is allowed besides its float32 tolerance
   * @throws {SyntaxError} when they are not what they should be
   */
  static async open(folder: string, slack = 0): Promise<GoldenCase> {
    const description = JSON.parse(await Deno.readTextFile(`${folder}/case.json`));
    for (const key of ["name", "kind", "config", "expected"]) {
      if (!(key in description)) throw new SyntaxError(`${folder}/case.json: no "${key}"`);
    }
    const stored = Object.keys(description.tensors ?? {}).length > 0
      ? await readAll(`${folder}/tensors.safetensors`)
      : new Map();
    const { name, kind, config, tensors = {}, expected } = description;
    return new GoldenCase(folder, name, kind, config, tensors, expected, stored, slack);
  }

  /** Contents of a stored tensor, whatever its type, in float64. */
  data(name: string): Float64Array {
    const found = this.stored.get(name);
    if (!found) throw new SyntaxError(`${this.folder}: tensors.safetensors holds no "${name}"`);
    return found;
  }

  /** The same as 32-bit floats, for a device. */
  floats(name: string): Float32Array {
    return Float32Array.from(this.data(name));
  }

  shape(name: string): number[] {
    const found = this.tensors[name];
    if (!found) throw new SyntaxError(`${this.folder}: case.json describes no tensor "${name}"`);
    return found.shape;
  }

  /** Whether case.json lists this tensor. */
  has(name: string): boolean {
    return name in this.tensors;
  }

  /** Names of tensors that begin with `prefix`, without it. */
  namesUnder(prefix: string): string[] {
    return Object.keys(this.tensors).filter((name) => name.startsWith(prefix)).map((name) => name.slice(prefix.length));
  }

  /** Compares a computed tensor with the truth: max |got − f64| ≤ atol over the elements that count. */
  compare(
    name: string,
    got: ArrayLike<number>,
    { atol, isolated = false }: { atol?: number; isolated?: boolean } = {},
  ) {
    const description = this.tensors[name];
    if (!description) throw new SyntaxError(`${this.folder}: case.json describes no tensor "${name}"`);
    this.#compared.add(name);
    const truth = this.stored.get(`${name}.f64`) ?? this.data(name);
    const excluded = description.exclude_from_comparison ?? [];
    const float32 = atol ?? (excluded.length ? description.atol_without_excluded : undefined) ?? description.atol ?? 0;
    const largest = this.slack === 0 ? 0 : truth.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const tolerance = float32 + this.slack * largest;
    if (got.length !== truth.length) {
      this.#record({ name, error: NaN, tolerance, passed: false, note: `${got.length} elements, not ${truth.length}` });
      return;
    }
    let error = 0, outside = 0;
    for (let i = 0; i < truth.length; i++) {
      if (excluded.some(([first, end]) => i >= first && i < end)) continue;
      const difference = got[i] === truth[i] ? 0 : Math.abs(got[i] - truth[i]);
      if (!(difference <= tolerance)) outside++;
      if (!(difference <= error)) error = difference; // NaN sticks
    }
    const fewOutside = isolated && outside < ISOLATED.share * truth.length && error <= ISOLATED.factor * tolerance;
    const note = outside > 0 && fewOutside ? `${outside} isolated of ${truth.length}` : undefined;
    this.#record({ name, error, tolerance, passed: outside === 0 || fewOutside, note });
  }

  /** Compares a computed scalar, or a plain value exactly, with `expected[name]`. */
  compareScalar(name: string, got: unknown) {
    const expected = this.expected[name];
    if (!expected) throw new SyntaxError(`${this.folder}: case.json expects no "${name}"`);
    this.#compared.add(name);
    const truth = expected.f64 ?? expected.value;
    const pairs = flatten(truth), values = flatten(got);
    let error = pairs.length === values.length ? 0 : NaN;
    let tolerance = 0;
    pairs.forEach((wanted, i) => {
      if (typeof wanted === "number" && typeof values[i] === "number") {
        const value = values[i] as number;
        const float32 = Math.max(expected.atol ?? 0, (expected.rtol ?? 0) * Math.abs(wanted));
        tolerance = Math.max(tolerance, float32 + (float32 > 0 ? this.slack * Math.max(1, Math.abs(wanted)) : 0));
        const difference = value === wanted ? 0 : Math.abs(value - wanted);
        if (!(difference <= error)) error = difference;
      } else if (!(wanted === values[i] || (wanted === null && Number.isNaN(values[i])))) error = NaN;
    });
    this.#record({ name, error, tolerance, passed: error <= tolerance });
  }

  /** Records a comparison of another kind (a distribution, an acceptance). */
  check(name: string, passed: boolean, error = 0, tolerance = 0, note?: string) {
    this.#compared.add(name);
    this.#record({ name, error, tolerance, passed, note });
  }

  /** Tensor results, and scalars with a tolerance, that nothing was compared with. */
  missing(): string[] {
    const tensors = Object.entries(this.tensors)
      .filter(([, t]) => RESULT_ROLES.has(t.role) && t.atol !== undefined && t.atol !== null).map(([name]) => name);
    const scalars = Object.entries(this.expected)
      .filter(([, e]) => e.atol !== undefined || e.rtol !== undefined).map(([name]) => name);
    return [...tensors, ...scalars].filter((name) => !this.#compared.has(name));
  }

  /** The comparison closest to, or furthest beyond, its tolerance. */
  worst(): Comparison | undefined {
    const weight = (c: Comparison) =>
      c.passed
        ? c.error / (c.tolerance || 1)
        : Number.isNaN(c.error)
        ? Infinity
        : 1e9 + c.error / (c.tolerance || 1e-30);
    return this.comparisons.reduce<Comparison | undefined>((a, b) => !a || weight(b) > weight(a) ? b : a, undefined);
  }

  #record(comparison: Comparison) {
    this.comparisons.push(comparison);
  }
}

/** Leaves of a nested value in order, so that lists and records compare like scalars. */
function flatten(value: unknown): unknown[] {
  if (Array.isArray(value)) return value.flatMap(flatten);
  if (ArrayBuffer.isView(value)) return Array.from(value as Float64Array);
  if (value && typeof value === "object") {
    const record = value as Record<string, unknown>;
    return Object.keys(record).sort().flatMap((key) => [key, ...flatten(record[key])]);
  }
  return [value];
}

async function readAll(path: string): Promise<Map<string, Float64Array>> {
  const source = await openFileSource(path);
  try {
    const header = await readSafetensorsHeader(source);
    const result = new Map<string, Float64Array>();
    for (const record of header.tensors.values()) {
      result.set(record.name, toFloat64(record.dtype, await readTensorBytes(source, record)));
    }
    return result;
  } finally {
    source.close?.();
  }
}
