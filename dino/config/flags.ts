// From a name somebody typed to the hyperparameter it means, or to the nearest one there is.

import { commandFields, configFields, refusedFlags } from "../config.ts";
import { type Field, flagOf } from "./field.ts";
import { nearestName } from "./nearest_name.ts";

/** A flag that was recognised. */
export interface KnownFlag {
  /** Key of the value in the configuration, such as `teacherTemp`. */
  readonly key: string;
  readonly field: Field;
  /** It was written `--no-…`, which makes a boolean false. */
  readonly negated: boolean;
  /** It belongs to the command, not to the configuration that is recorded. */
  readonly command: boolean;
}

/** Every field by key, those of the configuration and those of the command. */
export const allFields: Readonly<Record<string, Field>> = { ...configFields, ...commandFields };

/** `--Teacher_Temp` and `teacherTemp` -> `teacher-temp`: hyphens, underscores and JSON keys name the same flag. */
export function normalizeFlag(name: string): string {
  return flagOf(name.replace(/^--?/, "").replace(/^[A-Z]/, (c) => c.toLowerCase())).replace(/[_-]+/g, "-");
}

/** A flag of some command that was recognised. */
export type FoundFlag = Omit<KnownFlag, "command">;

/**
 * A function that finds the field behind a flag, as typed: with or without leading hyphens, with hyphens or underscores.
 *
 * It throws a RangeError if there is no such flag (naming the nearest), or if it is refused.
 *
 * @param fields by key
 * @param refused flags that have no meaning here, and what takes their place
 */
export function flagFinder(
  fields: Readonly<Record<string, Field>>,
  refused: Readonly<Record<string, string>> = {},
): (name: string) => FoundFlag {
  const byName = new Map<string, string>();
  for (const [key, field] of Object.entries(fields)) {
    for (const name of [flagOf(key), ...field.aliases]) byName.set(name, key);
  }
  return (name) => {
    const wanted = normalizeFlag(name);
    const key = byName.get(wanted);
    if (key) return { key, field: fields[key], negated: false };
    const positive = byName.get(wanted.replace(/^no-/, ""));
    if (wanted.startsWith("no-") && positive && fields[positive].kind === "boolean") {
      return { key: positive, field: fields[positive], negated: true };
    }
    if (Object.hasOwn(refused, wanted)) throw new RangeError(`--${wanted}: ${refused[wanted]}`);
    const nearest = nearestName(wanted, byName.keys());
    throw new RangeError(
      `unknown flag ${/^-[^-]/.test(name) ? name : `--${wanted}`}${
        nearest ? `: did you mean --${nearest}?` : ": --help lists them all"
      }`,
    );
  };
}

const findTrainingFlag = flagFinder(allFields, refusedFlags);

/**
 * Finds the hyperparameter behind a flag of training.
 *
 * @param name as typed, with or without leading hyphens, with hyphens or underscores
 * @throws {RangeError} if there is no such flag (naming the nearest), or if it belongs to the reference's launcher
 */
export function findFlag(name: string): KnownFlag {
  const found = findTrainingFlag(name);
  return { ...found, command: Object.hasOwn(commandFields, found.key) };
}
