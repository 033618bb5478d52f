// One side of a comparison in a process that stays: asked on a line of JSON, it measures a short turn and answers on another.

import { lines } from "../../cli/processes/launch.ts";

/** What to measure: products x·Wᵀ without bias, x [m, k] and W [n, k]. */
export interface Question {
  /** One of the side's libraries. */
  readonly library: string;
  readonly shape: readonly [m: number, n: number, k: number];
  /** Products of a run, each of operands of its own. */
  readonly in_a_row: number;
  /** Time for the turn, at least three runs. */
  readonly seconds: number;
}

/** Times of the runs of a turn. */
export interface Answer {
  readonly median_ms: number;
  readonly best_ms: number;
  /** Processor time over time that passed: cores it kept busy, if other programs left them. */
  readonly cores: number;
}

/** The first line a side prints: what it can measure, in which version, and what it lacks, with the reason. */
export interface Introduction {
  readonly libraries: Readonly<Record<string, string>>;
  readonly missing: Readonly<Record<string, string>>;
}

/** A process that answers. */
export class Side {
  readonly #command: string;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #lines: AsyncGenerator<string>;

  /** Starts it in the project's folder; it ends when `end` is called, or with this process. */
  constructor(command: string, args: string[], env: Record<string, string> = {}) {
    const cwd = new URL("../..", import.meta.url);
    const child = new Deno.Command(command, { args, env, cwd, stdin: "piped", stdout: "piped" }).spawn();
    this.#command = [command, ...args].join(" ");
    this.#input = child.stdin.getWriter();
    this.#lines = lines(child.stdout);
  }

  /** Its first line; to be asked for once, before any turn. */
  introduction(): Promise<Introduction> {
    return this.#line();
  }

  /** Measures one turn. */
  async turn(question: Question): Promise<Answer> {
    await this.#input.write(new TextEncoder().encode(`${JSON.stringify(question)}\n`));
    return await this.#line();
  }

  async end(): Promise<void> {
    await this.#input.close();
  }

  async #line<T>(): Promise<T> {
    const { done, value } = await this.#lines.next();
    if (done) throw new Error(`${this.#command} ended without an answer`);
    return JSON.parse(value);
  }
}
