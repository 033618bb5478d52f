// Two programs measured in turn (A B A B …), a process each time, and compared by the ratio of each round: what drifts, drifts for both.

/** A measurement as a program prints it. */
export interface Row {
  readonly shape: string;
  readonly median_ms: number;
  readonly peak_rss_mb?: number | null;
}

const root = new URL("../..", import.meta.url);

/** Runs a command and parses the JSON it prints, or its last line of JSON. */
export async function json<T = Row>(command: string, args: string[], env: Record<string, string> = {}): Promise<T[]> {
  const output = await new Deno.Command(command, { args, env, cwd: root, stderr: "piped" }).output();
  const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes).trim();
  if (!output.success) {
    throw new Error(`${command} ${args.join(" ")}: exit ${output.code}: ${decode(output.stderr).slice(-500)}`);
  }
  const text = decode(output.stdout);
  const parsed = JSON.parse(/^[[{]/.test(text) ? text : text.slice(text.lastIndexOf("\n") + 1));
  return Array.isArray(parsed) ? parsed : [parsed];
}

/** Rows of `cli/bench.ts` on the CPU backend. */
export function bench(threads: string | number, ...args: string[]): Promise<Row[]> {
  const flags = ["--backend", "wasm", "--threads", String(threads), "--json"];
  return json(Deno.execPath(), ["run", "-A", "cli/bench.ts", ...args, ...flags]);
}

/** The middle of some numbers. */
export function median(numbers: readonly number[]): number {
  return [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];
}

/** Times of both sides, round by round, by what was measured. */
export class Comparison {
  readonly #times = new Map<string, { ours: number[]; theirs: number[] }>();

  /** Adds one round of one thing. */
  add(what: string, ours: number, theirs: number): void {
    const times = this.#times.get(what) ?? { ours: [], theirs: [] };
    times.ours.push(ours);
    times.theirs.push(theirs);
    this.#times.set(what, times);
  }

  /** Prints a line for each thing; forgets them. */
  report(about: (what: string) => string = (what) => what): void {
    for (const [what, { ours, theirs }] of this.#times) {
      const ratios = ours.map((ms, i) => theirs[i] / ms);
      const spread = `${Math.min(...ratios).toFixed(2)}–${Math.max(...ratios).toFixed(2)}`;
      const times = [ours, theirs].map((ms) => `${median(ms).toFixed(1)} ms`);
      console.log(`| ${about(what)} | ${times.join(" | ")} | ${median(ratios).toFixed(2)} (${spread}) |`);
    }
    this.#times.clear();
  }
}

/** Begins a table. */
export function header(rounds: number, threads: string, peer: string): void {
  console.log(`${rounds} rounds in turn, ${threads} threads; a ratio above 1 means that this project is faster`);
  console.log(`| what | ours | ${peer} | ratio, median (range) |\n|---|---|---|---|`);
}
