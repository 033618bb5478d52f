// The words of a command line as values: every flag comes from a table of fields, none is known here.

import { type Field, flagOf, parseField, wordsOf } from "../../dino/config/field.ts";
import { flagFinder } from "../../dino/config/flags.ts";

/** A command's flags, as tables of fields. */
export interface FlagGroup {
  readonly title: string;
  readonly fields: Readonly<Record<string, Field>>;
}

/** What somebody typed. */
export interface ParsedFlags {
  /** Values of the flags that were given, by key; a flag given twice keeps its last value. */
  readonly given: Readonly<Record<string, unknown>>;
  /** Words that belong to no flag. */
  readonly positional: readonly string[];
  readonly help: boolean;
}

const BOOLEAN_WORD = /^(true|false|on|off|yes|no|1|0)$/i;
const NUMBER_WORD = /^[+-]?\.?\d/;
const isFlag = (word: string) => word.length > 1 && word.startsWith("-") && !NUMBER_WORD.test(word);

/**
 * Reads a command line: `--flag value`, `--flag=value`, bare booleans, `--no-flag`, `--range 0.4 1`, in any order.
 *
 * @param refused flags that have no meaning here, and what takes their place
 * @throws {RangeError | TypeError} for an unknown flag, naming the nearest, or a value that cannot be
 */
export function parseFlags(
  words: readonly string[],
  groups: readonly FlagGroup[],
  refused: Readonly<Record<string, string>> = {},
): ParsedFlags {
  const find = flagFinder(Object.assign({}, ...groups.map(({ fields }) => fields)), refused);
  const given: Record<string, unknown> = {};
  const positional: string[] = [];
  for (let at = 0; at < words.length;) {
    const word = words[at++];
    if (word === "--") return { given, positional: [...positional, ...words.slice(at)], help: false };
    if (!isFlag(word)) {
      positional.push(word);
      continue;
    }
    if (word === "-h" || word === "--help") return { given, positional, help: true };
    const [, name, , inline] = /^([^=]*)(=(.*))?$/s.exec(word)!;
    const { key, field, negated } = find(name);
    const written = `--${flagOf(key)}`;
    if (negated) {
      if (inline !== undefined) throw new TypeError(`${name}=${inline}: takes no value: write ${written}=${inline}`);
      given[key] = false;
      continue;
    }
    const values = inline === undefined ? valuesAfter(words, at, field) : splitInline(inline, field);
    if (inline === undefined) at += values.length;
    given[key] = parseField(written, field, values);
  }
  return { given, positional, help: false };
}

/** The words after a flag that are its values. */
function valuesAfter(words: readonly string[], start: number, field: Field): string[] {
  const most = wordsOf(field);
  const values: string[] = [];
  for (const word of words.slice(start)) {
    if (values.length === most || isFlag(word)) break;
    if (field.kind === "boolean" && !BOOLEAN_WORD.test(word)) break; // a bare flag, then something else
    if (most > 1 && !NUMBER_WORD.test(word)) break;
    values.push(word);
  }
  return values;
}

/** `--scale=0.4,1` and `--scale="0.4 1"` are two values. */
function splitInline(value: string, field: Field): string[] {
  return wordsOf(field) > 1 ? value.split(/[\s,]+/).filter((part) => part !== "") : [value];
}
