// Means over updates, kept as sums in the order of the updates so that a resumed run continues the same additions.

/** Sums that can be written into a checkpoint. */
export interface SavedSums {
  /** Values added. */
  readonly count: number;
  /** Their sums, by name. */
  readonly sums: Readonly<Record<string, number>>;
}

/** Adds up named values. */
export class RunningMean<Name extends string> {
  #count = 0;
  readonly #sums: Record<string, number> = {};

  /** Begins with nothing, or with saved sums. */
  constructor(readonly names: readonly Name[], saved?: SavedSums) {
    for (const name of names) this.#sums[name] = saved?.sums[name] ?? 0;
    this.#count = saved?.count ?? 0;
  }

  /** Values added so far. */
  get count(): number {
    return this.#count;
  }

  /** Adds one value of each name. */
  add(values: Readonly<Record<Name, number>>): void {
    this.#count++;
    for (const name of this.names) this.#sums[name] += values[name];
  }

  /** NaN for everything when nothing was added. */
  means(): Record<Name, number> {
    return Object.fromEntries(this.names.map((name) => [name, this.#sums[name] / this.#count])) as Record<Name, number>;
  }

  /** Begins anew. */
  clear(): void {
    this.#count = 0;
    for (const name of this.names) this.#sums[name] = 0;
  }

  /** What a checkpoint keeps. */
  toJSON(): SavedSums {
    return { count: this.#count, sums: { ...this.#sums } };
  }
}
