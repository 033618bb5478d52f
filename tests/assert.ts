// Assertions of Deno's standard library, with the types its npm repack lacks.
import { assert as assertAny } from "npm:deno-std@1.4.0/assert/assert.js";
import { assertAlmostEquals as almostEqualsAny } from "npm:deno-std@1.4.0/assert/almost_equals.js";
import { assertEquals as equalsAny } from "npm:deno-std@1.4.0/assert/equals.js";
import { assertRejects as rejectsAny } from "npm:deno-std@1.4.0/assert/rejects.js";
import { assertStringIncludes as stringIncludesAny } from "npm:deno-std@1.4.0/assert/string_includes.js";
import { assertThrows as throwsAny } from "npm:deno-std@1.4.0/assert/throws.js";

// deno-lint-ignore no-explicit-any
type ErrorClass<E extends Error> = new (...args: any[]) => E;

/** Fails unless `condition` holds. */
export const assert: (condition: unknown, message?: string) => asserts condition = assertAny;

/** Deep equality. */
export const assertEquals: <T>(actual: T, expected: T, message?: string) => void = equalsAny;

/** |actual − expected| ≤ tolerance. */
export const assertAlmostEquals: (actual: number, expected: number, tolerance?: number, message?: string) => void =
  almostEqualsAny;

/** Fails unless `actual` contains `expected`. */
export const assertStringIncludes: (actual: string, expected: string, message?: string) => void = stringIncludesAny;

/** The error that `run` must throw, of the class, with a message that contains `includes`. */
export const assertThrows: <E extends Error>(run: () => unknown, error: ErrorClass<E>, includes?: string) => E =
  throwsAny;

/** The error that the promise of `run` must reject with, of the class, with a message that contains `includes`. */
export const assertRejects: <E extends Error>(
  run: () => PromiseLike<unknown>,
  error: ErrorClass<E>,
  includes?: string,
) => Promise<E> = rejectsAny;
