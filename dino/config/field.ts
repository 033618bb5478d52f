// One hyperparameter as data: its kind, default, bounds and advice, from which flags, --help and JSON checks follow.

import { nearestName } from "./nearest_name.ts";

/** What a value may be; `numbers` has a fixed length (a range, a colour), `integers` any length from one. */
export type FieldKind = "number" | "integer" | "boolean" | "text" | "choice" | "numbers" | "integers";

/** Everything known about one hyperparameter. `T` includes null when "fit it for me" (or "none") is a value. */
export interface Field<T = unknown> {
  /** How words and JSON are read. */
  readonly kind: FieldKind;
  /** The value when nobody says otherwise. */
  readonly default: T;
  /** What it does and how to choose it, in one line of --help. */
  readonly advice: string;
  /** The unit of the number, as in "updates" or "pixels". */
  readonly unit?: string;
  /** Other flag names, hyphenated, as the reference or other tools spell it. */
  readonly aliases: readonly string[];
  /** The words a choice may be. */
  readonly choices?: readonly string[];
  /** Smallest value allowed. */
  readonly min?: number;
  /** Largest value allowed. */
  readonly max?: number;
  /** The value must be larger than this. */
  readonly above?: number;
  /** null is a value; what it means stands in `advice`. At the command line: `auto` or `none`. */
  readonly nullable: boolean;
}

/** Bounds, unit and other names of a field. */
export interface FieldOptions {
  /** The unit of the number. */
  readonly unit?: string;
  /** Other flag names, hyphenated. */
  readonly aliases?: readonly string[];
  /** Smallest value allowed. */
  readonly min?: number;
  /** Largest value allowed. */
  readonly max?: number;
  /** The value must be larger than this. */
  readonly above?: number;
}

/** `T`, and null where the default `V` is null. */
export type Loose<T, V> = V extends null ? T | null : T;

/** As many numbers as `V` has. */
export type Numbers<V extends readonly number[]> = { readonly [I in keyof V]: number };

function field<T>(kind: FieldKind, value: T, advice: string, options: FieldOptions & { choices?: readonly string[] }) {
  return { aliases: [], ...options, kind, default: value, advice, nullable: value === null } as Field<T>;
}

/** A real number; a default of null makes null a value. */
export function number<V extends number | null>(
  value: V,
  advice: string,
  options: FieldOptions = {},
): Field<Loose<number, V>> {
  return field("number", value as Loose<number, V>, advice, options);
}

/** A whole number; a default of null makes null a value. */
export function integer<V extends number | null>(
  value: V,
  advice: string,
  options: FieldOptions = {},
): Field<Loose<number, V>> {
  return field("integer", value as Loose<number, V>, advice, options);
}

/** True or false. */
export function boolean(value: boolean, advice: string, options: FieldOptions = {}): Field<boolean> {
  return field<boolean>("boolean", value, advice, options);
}

/** A path or a name; a default of null makes null a value. */
export function text<V extends string | null>(
  value: V,
  advice: string,
  options: FieldOptions = {},
): Field<Loose<string, V>> {
  return field("text", value as Loose<string, V>, advice, options);
}

/** One of a few words. */
export function choice<const C extends readonly string[]>(
  choices: C,
  value: C[number],
  advice: string,
  options: FieldOptions = {},
): Field<C[number]> {
  return field<C[number]>("choice", value, advice, { ...options, choices });
}

/** As many numbers as the default has, such as a range. */
export function numbers<const V extends readonly number[]>(
  value: V,
  advice: string,
  options: FieldOptions = {},
): Field<Numbers<V>> {
  return field<Numbers<V>>("numbers", value as unknown as Numbers<V>, advice, options);
}

/** One or more whole numbers. */
export function integers(
  value: readonly number[],
  advice: string,
  options: FieldOptions = {},
): Field<readonly number[]> {
  return field<readonly number[]>("integers", value, advice, options);
}

/** `teacherTemp` -> `teacher-temp`. */
export function flagOf(key: string): string {
  return key.replace(/[A-Z]/g, (part) => `-${part.toLowerCase()}`);
}

/** The range a field allows, in words; empty when it allows everything of its kind. */
export function boundsOf(field: Field): string {
  const parts = [];
  if (field.above !== undefined) parts.push(`above ${field.above}`);
  if (field.min !== undefined) parts.push(`at least ${field.min}`);
  if (field.max !== undefined) parts.push(`at most ${field.max}`);
  return parts.join(" and ");
}

/**
 * Checks a value from JSON or a program against its field.
 *
 * @param name how the value is called in messages, such as `--teacher-temp`
 * @throws {TypeError} if it is of another kind
 * @throws {RangeError} if it is outside the bounds or not among the choices
 */
export function checkField(name: string, field: Field, value: unknown): void {
  if (value === null && field.nullable) return;
  const wrongKind = (wanted: string) => {
    throw new TypeError(`${name} ${JSON.stringify(value)}: wants ${wanted}, such as ${example(field)}`);
  };
  switch (field.kind) {
    case "boolean":
      if (typeof value !== "boolean") wrongKind("true or false");
      return;
    case "text":
      if (typeof value !== "string") wrongKind("text");
      if (value === "") throw new RangeError(`${name}: is empty: leave the flag out, or give a value`);
      return;
    case "choice":
      if (typeof value !== "string") wrongKind(`one of ${field.choices!.join(", ")}`);
      if (!field.choices!.includes(value as string)) {
        const nearest = nearestName(value as string, field.choices!);
        throw new RangeError(
          `${name} ${value}: is not one of ${field.choices!.join(", ")}${nearest ? `: did you mean ${nearest}?` : ""}`,
        );
      }
      return;
    case "numbers": {
      const length = (field.default as readonly number[]).length;
      if (!Array.isArray(value) || value.length !== length) wrongKind(`${length} numbers`);
      for (const each of value as unknown[]) checkNumber(name, field, each, false);
      return;
    }
    case "integers":
      if (!Array.isArray(value) || value.length === 0) wrongKind("one or more whole numbers");
      for (const each of value as unknown[]) checkNumber(name, field, each, true);
      return;
    default:
      checkNumber(name, field, value, field.kind === "integer");
  }
}

function checkNumber(name: string, field: Field, value: unknown, whole: boolean): void {
  if (typeof value !== "number" || Number.isNaN(value)) {
    throw new TypeError(
      `${name} ${typeof value === "number" ? value : JSON.stringify(value)}: wants a ${
        whole ? "whole " : ""
      }number, such as ${example(field)}`,
    );
  }
  if (whole && !Number.isSafeInteger(value)) {
    throw new RangeError(`${name} ${value}: wants a whole number, such as ${Math.round(value) || example(field)}`);
  }
  const low = field.above !== undefined && !(value > field.above) || field.min !== undefined && value < field.min;
  if (low || !Number.isFinite(value) || field.max !== undefined && value > field.max) {
    const bounds = Number.isFinite(value) ? boundsOf(field) : "finite";
    const usual = field.default === null ? "" : `; the default is ${example(field)}`;
    throw new RangeError(`${name} ${value}: must be ${bounds}${usual}`);
  }
}

function example(field: Field): string {
  if (Array.isArray(field.default)) return field.default.join(" ");
  if (field.default !== null) return String(field.default);
  return field.kind === "text" ? "a path" : String(field.max ?? Math.max(field.min ?? 1, 1));
}

/**
 * Reads what followed a flag on the command line.
 *
 * @param name how the flag was written, for messages
 * @param words the words after it; none means a bare flag
 * @throws {TypeError | RangeError} as {@linkcode checkField}
 */
export function parseField(name: string, field: Field, words: readonly string[]): unknown {
  const [word] = words;
  let value: unknown;
  if (field.nullable && words.length === 1 && (word === "auto" || word === "none")) value = null;
  else if (field.kind === "boolean") value = parseBoolean(name, word);
  else if (word === undefined) {
    const wanted = field.kind === "numbers" ? `${(field.default as number[]).length} values` : "a value";
    throw new TypeError(`${name}: wants ${wanted}, such as ${name} ${example(field)}`);
  } else if (field.kind === "text" || field.kind === "choice") value = word;
  else {
    const parsed = words.map((each) => parseNumber(name, field, each));
    value = field.kind === "numbers" || field.kind === "integers" ? parsed : parsed[0];
  }
  checkField(name, field, value);
  return value;
}

function parseBoolean(name: string, word: string | undefined): boolean {
  // The reference takes off/false/0 and on/true/1 in any case; users of --norm_last_layer write these.
  switch (word?.toLowerCase()) {
    case undefined:
    case "true":
    case "on":
    case "1":
    case "yes":
      return true;
    case "false":
    case "off":
    case "0":
    case "no":
      return false;
  }
  throw new TypeError(`${name} ${word}: wants true or false`);
}

function parseNumber(name: string, field: Field, word: string): number {
  // Number("") is 0 and Number("0x10") is 16: neither is what somebody means by a hyperparameter.
  if (!/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(word)) {
    throw new TypeError(`${name} ${word}: is not a number; try ${name} ${example(field)}`);
  }
  return Number(word);
}

/** How many words follow the flag at most: 1 for one value, Infinity for a list; a boolean may stand alone. */
export function wordsOf(field: Field): number {
  if (field.kind === "numbers") return (field.default as readonly number[]).length;
  return field.kind === "integers" ? Infinity : 1;
}
