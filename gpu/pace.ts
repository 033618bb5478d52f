// How many submissions may be under way: a wait costs 10 ms and empties the queue, so waits come about once a second.

/** Work that may pile up on the device before the host waits for it, in milliseconds; whoever reads each second waits before that. */
const WORK_AHEAD = 1500;
const MOST_RUNS_AHEAD = 64;

/** Lets runs pile up until a second or two of work is queued, then waits for the device. */
export class Pacer {
  #runs = 0;
  #allowed = 1;
  #since = 0;

  constructor(readonly wait: () => Promise<unknown>, readonly now: () => number = () => performance.now()) {}

  /** Call after each submission. */
  async submitted(): Promise<void> {
    if (this.#runs === 0) this.#since = this.now();
    if (++this.#runs < this.#allowed) return;
    await this.wait();
    this.drained();
  }

  /** Call when the device is known to have finished everything. */
  drained(): void {
    if (this.#runs === 0) return;
    const each = Math.max(0.01, (this.now() - this.#since) / this.#runs);
    // The first runs build caches and say little: at most double.
    this.#allowed = Math.max(2, Math.min(2 * this.#allowed, Math.floor(WORK_AHEAD / each), MOST_RUNS_AHEAD));
    this.#runs = 0;
  }
}
