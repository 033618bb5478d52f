// For tests: bytes around every persistent buffer that no kernel may change, and NaN wherever a run has not yet written.

const PATTERN = 0xa5;
/** Four of them are a NaN. */
const POISON = 0xff;

/** Watches the surroundings of buffers. Turbo mode has no bounds checks, so nothing else would notice a stray store. */
export class RedZones {
  readonly #watched = new Map<number, { bytes: number; name: string }>();

  constructor(readonly memory: WebAssembly.Memory, readonly zone: number) {}

  /** Marks the zones before and after a buffer. */
  surround(address: number, bytes: number, name: string): void {
    this.#watched.set(address, { bytes, name });
    for (const zone of this.#zonesOf(address, bytes)) zone.fill(PATTERN);
  }

  /** Stops watching a buffer. */
  forget(address: number): void {
    this.#watched.delete(address);
  }

  /** Fills memory with NaN. */
  poison(start: number, end: number): void {
    new Uint8Array(this.memory.buffer, start, end - start).fill(POISON);
  }

  /** Throws {Error} naming the buffer beside which something was written; `end`: where the last thread's scratch ends. */
  check(end: number): void {
    const guard = new Uint8Array(this.memory.buffer, end);
    if (!isFull(guard, POISON)) throw new Error("wasm: a kernel wrote past the end of its scratch");
    for (const [address, { bytes, name }] of this.#watched) {
      const [before, after] = this.#zonesOf(address, bytes);
      if (!isFull(before, PATTERN)) throw new Error(`wasm: a kernel wrote before ${name}`);
      if (!isFull(after, PATTERN)) throw new Error(`wasm: a kernel wrote past the end of ${name}`);
    }
  }

  #zonesOf(address: number, bytes: number): [Uint8Array, Uint8Array] {
    const { memory: { buffer }, zone } = this;
    return [new Uint8Array(buffer, address - zone, zone), new Uint8Array(buffer, address + bytes, zone)];
  }
}

/** Whether all bytes are that one; `every` takes several times as long. */
function isFull(bytes: Uint8Array, value: number): boolean {
  for (let i = 0; i < bytes.length; i++) if (bytes[i] !== value) return false;
  return true;
}
