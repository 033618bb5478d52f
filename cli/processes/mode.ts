// Which V8 runs this process: with the flags that make kernels fast, or with bounds checks. Only a launcher can choose.

/** `turbo`: WebAssembly without bounds checks, in 256-bit vectors. `checked`: V8 as it comes. */
export type Mode = "turbo" | "checked";

/** What makes V8 fast on the kernels; given at process start, there is no other way. */
export const TURBO_FLAGS = "--experimental-wasm-revectorize,--no-wasm-bounds-checks";

/** V8's flags of a compute process, from those that were given to this one: what a shell exports for the library, say. */
export function flagsFor(mode: Mode, given: string | undefined): string | undefined {
  if (mode === "turbo") return given ? `${given},${TURBO_FLAGS}` : TURBO_FLAGS;
  if (!given) return undefined;
  // Of two that contradict each other V8 takes the last; it may not know those that nobody gave.
  const back = ["--wasm-bounds-checks", "--no-experimental-wasm-revectorize"];
  const names = given.replaceAll("_", "-");
  return [given, ...back.filter((flag) => names.includes(flag.replace(/^--(no-)?/, "")))].join(",");
}

/** Tells a compute process its mode; V8's own settings cannot be asked for. */
export const MODE_VARIABLE = "DENODINO_MODE";

/** First argument that `deno compile` bakes into a binary, with the mode it is compiled for. */
const BUILT = "--built=";

/** The mode a binary was compiled for; undefined when this is no binary. */
export function builtMode(): Mode | undefined {
  if (!Deno.build.standalone) return undefined;
  return Deno.args[0] === `${BUILT}turbo` ? "turbo" : "checked";
}

/** Command line without what was baked in. */
export function givenArguments(): string[] {
  return Deno.args[0]?.startsWith(BUILT) ? Deno.args.slice(1) : [...Deno.args];
}

/** The mode that suits this machine: only x86-64 has vectors of 256 bits to gain. */
export function preferredMode(checked: boolean): Mode {
  return checked || Deno.build.arch !== "x86_64" ? "checked" : "turbo";
}
