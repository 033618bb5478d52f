// Signals that ask a command to stop: Ctrl-C, SIGTERM, and the hang-up of a terminal that is closed.

import { EXIT_HANGUP, EXIT_INTERRUPTED, EXIT_TERMINATED } from "../terminal/failure.ts";

/** Signals that ask to stop, with the status a shell expects then. */
const STATUSES: Readonly<Partial<Record<Deno.Signal, number>>> = Deno.build.os === "windows"
  ? { SIGINT: EXIT_INTERRUPTED }
  : { SIGINT: EXIT_INTERRUPTED, SIGTERM: EXIT_TERMINATED, SIGHUP: EXIT_HANGUP };

const ignore = () => {};

/** Whether this process was started so; asked before the first listener, with which Deno changes the answer. */
export const HANG_UP_IS_IGNORED = hangUpIsIgnored();

/**
 * Calls `stop` for every signal that asks this process to stop.
 *
 * @returns ends that
 */
export function onStopSignals(stop: (signal: Deno.Signal, status: number) => void): () => void {
  if (HANG_UP_IS_IGNORED) Deno.addSignalListener("SIGHUP", ignore); // for good: Deno would take its default action again
  const handlers = (Object.entries(STATUSES) as [Deno.Signal, number][])
    .filter(([signal]) => signal !== "SIGHUP" || !HANG_UP_IS_IGNORED)
    .map(([signal, status]) => [signal, () => stop(signal, status)] as const);
  for (const [signal, handler] of handlers) Deno.addSignalListener(signal, handler);
  return () => {
    for (const [signal, handler] of handlers) Deno.removeSignalListener(signal, handler);
  };
}

/** Lets signals pass by that a terminal sends to every process, in one whose parent decides. */
export function leaveToParent(): void {
  Deno.addSignalListener("SIGINT", ignore);
  if (Deno.build.os !== "windows") Deno.addSignalListener("SIGHUP", ignore);
}

/** What `work` gives, or the exit status if a signal stopped it. */
export async function untilStopped<T>(work: (signal: AbortSignal) => Promise<T>): Promise<{ done: T } | number> {
  const stop = new AbortController();
  let status = EXIT_INTERRUPTED;
  const remove = onStopSignals((_, code) => {
    status = code;
    stop.abort();
  });
  try {
    const done = await work(stop.signal);
    return stop.signal.aborted ? status : { done };
  } catch (error) {
    if (stop.signal.aborted) return status;
    throw error;
  } finally {
    remove();
  }
}

/** Whoever starts a command with nohup wants it to outlive the terminal; listening would undo that. */
function hangUpIsIgnored(): boolean {
  if (Deno.build.os === "windows") return false;
  try {
    const [, mask] = /^SigIgn:\s*([0-9a-f]+)/m.exec(Deno.readTextFileSync("/proc/self/status"))!;
    return (parseInt(mask.slice(-1), 16) & 1) === 1; // SIGHUP is the first signal
  } catch {
    return ![Deno.stdin, Deno.stdout, Deno.stderr].some((stream) => stream.isTerminal()); // no /proc: what nohup redirects
  }
}
