// Whose mistake an error is: the user's gets its message and status 2, ours gets status 1.

import { printable } from "./printable.ts";

/** The user's mistake, or something about their files. */
export const EXIT_USAGE = 2;
/** Our mistake, or the machine's. */
export const EXIT_FAILURE = 1;
/** What a shell expects of a process that Ctrl-C ended, of one that was asked to end, and of one whose terminal was closed. */
export const EXIT_INTERRUPTED = 130;
export const EXIT_TERMINATED = 143;
export const EXIT_HANGUP = 129;

/** The same for --help. */
export const EXIT_STATUSES =
  "Exit status: 0 done, 2 something to change in the command or the data, 1 a failure; stopped " +
  `by Ctrl-C ${EXIT_INTERRUPTED}, by SIGTERM ${EXIT_TERMINATED}, by the end of its terminal ${EXIT_HANGUP}.`;

/** An error that can be told to another process, or to a person. */
export interface Failure {
  readonly message: string;
  readonly exit: number;
  /** Only of mistakes that are ours. */
  readonly stack?: string;
}

// What V8 itself throws for a bug is of the same classes as what we throw on purpose.
const V8_BUG =
  /^(Cannot (read|set|convert|mix|destructure|access|perform)|.* is not (a function|iterable|defined|a constructor)|Assignment to constant|Invalid (array|typed array|array buffer|DataView)|Offset is out|offset is out|Start offset|Array buffer allocation|Maximum call stack|Unexpected (token|end)|WebAssembly\.)/;

const FILE_ERRORS: readonly (new (...args: never[]) => Error)[] = [
  Deno.errors.NotFound,
  Deno.errors.PermissionDenied,
  Deno.errors.NotADirectory,
  Deno.errors.IsADirectory,
  Deno.errors.AlreadyExists,
];

/** True for errors that say what the user can change. */
export function isUsersMistake(error: unknown): boolean {
  if (FILE_ERRORS.some((kind) => error instanceof kind)) return true;
  const deliberate = error instanceof RangeError || error instanceof TypeError || error instanceof SyntaxError;
  return deliberate && !V8_BUG.test(error.message);
}

/** An error as what is told of it. */
export function failureOf(error: unknown): Failure {
  const message = error instanceof Error ? error.message : String(error);
  if (isUsersMistake(error)) return { message, exit: EXIT_USAGE };
  // A plain Error is a message of ours about the machine; anything else is a bug, and its place matters.
  const plain = error instanceof Error && error.constructor === Error;
  return { message, exit: EXIT_FAILURE, stack: plain ? undefined : (error as Error)?.stack };
}

/** Prints a failure as `command: message`. */
export function printFailure(command: string, { message, stack }: Failure): void {
  console.error(`${command}: ${printable(message)}`);
  if (stack) console.error(stack.split("\n").slice(1).join("\n"));
}

/** Runs a command to its exit status; what it throws is printed. */
export async function exitStatus(command: string, run: () => Promise<number>): Promise<number> {
  try {
    return await run();
  } catch (error) {
    const failure = failureOf(error);
    printFailure(command, failure);
    return failure.exit;
  }
}
