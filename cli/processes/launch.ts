// Starts the compute process, hears its events, and hands on what the terminal and the system signal.

import { basename, dirname, join } from "node:path";
import { EXIT_FAILURE, EXIT_HANGUP, EXIT_INTERRUPTED, EXIT_TERMINATED } from "../terminal/failure.ts";
import type { ComputeEvent, Job } from "./messages.ts";
import { builtMode, flagsFor, type Mode, MODE_VARIABLE, preferredMode } from "./mode.ts";
import { onStopSignals } from "./signals.ts";

/** The hidden command by which a compiled binary starts itself to compute. */
export const COMPUTE_COMMAND = "__compute";

/** How a job is launched. */
export interface LaunchOptions {
  /** Keep bounds checks. */
  readonly checked: boolean;
  readonly onEvent: (event: ComputeEvent) => void;
  /** What the launcher itself has to say. */
  readonly onNotice: (message: string) => void;
  /** What the compute process says on stderr. Default: passed on. */
  readonly onError?: (line: string) => void;
  /** The program to start; default: this one. */
  readonly command?: (mode: Mode, foreign: boolean) => Deno.Command;
}

/**
 * Runs a job in a process of its own.
 *
 * Ctrl-C reaches the compute process too: it saves and ends. SIGTERM and the end of the terminal are handed on. A second
 * Ctrl-C ends it at once.
 *
 * @returns its exit status
 * @throws {RangeError} if a binary that cannot check is asked to
 */
export async function launch(job: Job, options: LaunchOptions): Promise<number> {
  const mode = preferredMode(options.checked);
  const first = await runOnce(job, mode, options);
  if (first.ready || mode === "checked" || Deno.build.standalone || first.stopped) return first.code;
  options.onNotice("this Deno does not take the V8 flags of turbo mode: going on with bounds checks");
  return (await runOnce(job, "checked", options)).code;
}

async function runOnce(job: Job, mode: Mode, options: LaunchOptions) {
  const { onEvent, onNotice, onError = (line) => console.error(line), command = computeCommand } = options;
  const child = command(mode, isForeign(job)).spawn();
  const input = child.stdin.getWriter();
  let ready = false, explained = false;
  const signals = forwardSignals(child, input, onNotice, job.command === "train");
  try {
    await input.write(new TextEncoder().encode(JSON.stringify(job) + "\n"));
  } catch { /* ended already: its status says why */ }
  // What a process says that never got ready is its reason, unless there is another way.
  const held: string[] = [];
  const errors = passErrors(child.stderr, (line) => ready ? onError(line) : held.push(line));
  for await (const line of lines(child.stdout)) {
    const event = JSON.parse(line) as ComputeEvent;
    if (event.type === "ready") {
      ready = true;
      for (const line of held.splice(0)) onError(line);
    }
    if (event.type === "failure" || event.type === "end") explained = true;
    onEvent(event);
  }
  const status = await child.status;
  await errors;
  signals.remove();
  await input.close().catch(() => {});
  const stopped = signals.received !== undefined;
  if (!ready && mode === "turbo" && !stopped && !Deno.build.standalone) return { ready, stopped, code: status.code };
  for (const line of held) onError(line);
  return { ready, stopped, code: exitCode(status, mode, signals.received, explained || !ready, onNotice) };
}

const STOPPED: Readonly<Partial<Record<Deno.Signal, number>>> = {
  SIGINT: EXIT_INTERRUPTED,
  SIGTERM: EXIT_TERMINATED,
  SIGHUP: EXIT_HANGUP,
};

function exitCode(
  status: Deno.CommandStatus,
  mode: Mode,
  received: Deno.Signal | undefined,
  explained: boolean,
  onNotice: (message: string) => void,
): number {
  if (received !== undefined && status.signal !== null) return STOPPED[received] ?? EXIT_TERMINATED;
  if (received === "SIGHUP" && status.code === EXIT_TERMINATED) return EXIT_HANGUP; // handed on as SIGTERM
  if (status.code === 139 || status.signal === "SIGSEGV") {
    onNotice(
      mode === "turbo"
        ? "a kernel touched memory it should not have (segmentation fault): run again with --checked, which names it, " +
          "and report what it says; the last checkpoint is intact"
        : "the compute process crashed (segmentation fault); the last checkpoint is intact",
    );
    return EXIT_FAILURE;
  }
  if (status.signal !== null) {
    onNotice(
      `the compute process was ended by ${status.signal}` +
        (status.signal === "SIGKILL" ? ": memory may have run out: try a smaller --batch-size or --accumulate" : ""),
    );
    return EXIT_FAILURE;
  }
  if (status.code !== 0 && status.code !== EXIT_INTERRUPTED && status.code !== EXIT_TERMINATED && !explained) {
    onNotice(`the compute process ended with status ${status.code} and did not say why`);
  }
  return status.code;
}

/** Saving may take a moment; whoever presses Ctrl-C a second time does not want to wait for it. */
function forwardSignals(
  child: Deno.ChildProcess,
  input: WritableStreamDefaultWriter<Uint8Array>,
  onNotice: (message: string) => void,
  saves: boolean,
) {
  const state = { received: undefined as Deno.Signal | undefined, remove: () => {} };
  const interrupt = () => {
    if (state.received !== undefined) return kill(child, "SIGKILL");
    state.received = "SIGINT";
    onNotice(
      saves
        ? "stopping after this update, and saving (Ctrl-C again: at once, without saving)"
        : "stopping (Ctrl-C again: at once)",
    );
    input.close().catch(() => {}); // for a Ctrl-C that reached only this process
  };
  state.remove = onStopSignals((signal) => {
    if (signal === "SIGINT") return interrupt();
    state.received ??= signal;
    kill(child, "SIGTERM");
  });
  return state;
}

function kill(child: Deno.ChildProcess, signal: Deno.Signal): void {
  try {
    child.kill(signal);
  } catch { /* ended already */ }
}

/** Dawn and MPI are native libraries, which want one more permission. */
function isForeign(job: Job): boolean {
  if (job.command === "follow" || job.command === "abandon" || job.command === "train" && job.distributed) return true;
  return (job.command === "train" ? job.config : job.device).webgpu === "dawn";
}

function computeCommand(mode: Mode, foreign: boolean): Deno.Command {
  const env = Deno.env.toObject();
  env[MODE_VARIABLE] = builtMode() ?? mode;
  env.DENO_NO_PACKAGE_JSON = "1"; // a package.json in the working folder would change how npm: is resolved
  const streams = { env, clearEnv: true, stdin: "piped", stdout: "piped", stderr: "piped" } as const;
  if (Deno.build.standalone) {
    // A binary has its flags baked in: what it is not, its neighbour is.
    const executable = builtMode() === mode || mode === "turbo" ? Deno.execPath() : checkedBinary();
    if (executable === undefined) {
      throw new RangeError(
        `--checked: this binary is compiled without bounds checks: put ${CHECKED_NAME} beside it, or run that`,
      );
    }
    env[MODE_VARIABLE] = executable === Deno.execPath() ? builtMode()! : "checked";
    return new Deno.Command(executable, { args: [COMPUTE_COMMAND], ...streams });
  }
  const v8Flags = flagsFor(mode, env.DENO_V8_FLAGS);
  delete env.DENO_V8_FLAGS; // an empty value would be fatal
  if (v8Flags) env.DENO_V8_FLAGS = v8Flags;
  const module = import.meta.resolve("./compute.ts");
  const local = module.startsWith("file:");
  const args = ["run", "--quiet", "--no-prompt", "--allow-read", "--allow-write", "--allow-env", "--allow-sys"];
  if (foreign) args.push("--allow-ffi", "--no-lock"); // what is fetched for it is no part of this project's lock
  if (!local) args.push("--no-config", "--allow-import"); // a deno.json of the working folder is somebody else's
  return new Deno.Command(Deno.execPath(), { args: [...args, module], ...streams });
}

const CHECKED_NAME = Deno.build.os === "windows" ? "dino-checked.exe" : "dino-checked";

/** The binary with bounds checks, if it lies beside this one; decoders should run in it. */
export function checkedBinary(): string | undefined {
  if (builtMode() !== "turbo") return undefined;
  const own = Deno.execPath();
  const extension = Deno.build.os === "windows" ? ".exe" : "";
  const renamed = `${basename(own, extension)}-checked${extension}`;
  for (const name of [renamed, CHECKED_NAME]) {
    const path = join(dirname(own), name);
    try {
      if (Deno.statSync(path).isFile) return path;
    } catch { /* not there */ }
  }
}

/** Lines that are not empty, as they come. */
export async function* lines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  for await (const part of stream.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>)) {
    const parts = (rest + part).split("\n");
    rest = parts.pop()!;
    for (const line of parts) if (line.trim() !== "") yield line;
  }
}

/** Hands on what a process says on stderr, but for what only alarms. */
async function passErrors(stream: ReadableStream<Uint8Array>, hand: (line: string) => void): Promise<void> {
  for await (const line of lines(stream)) {
    if (/XDG_RUNTIME_DIR/.test(line)) continue; // Vulkan's loader, wherever nobody is logged in at a screen
    hand(line);
  }
}
