// Where things lie in the one shared memory: persistent buffers from the bottom, what a run needs from the top.
import { OutOfMemoryError } from "../models/graph/backend.ts";
import { Control } from "./codes.ts";

/** Every allocation starts at a multiple of this: four cache lines, and any vector load stays inside the padding. */
const ALIGNMENT = 256;

/** The last bytes of the memory belong to nobody: vector loads may look past the end of a buffer. */
const GUARD = 4096;

/** Where the control block lies; address 0 means "absent" to kernels. */
export const CONTROL_ADDRESS = 1024;

const PAGE = 65536;

/** Bytes rounded up to whole allocations. */
export function allocated(bytes: number): number {
  return Math.max(1, Math.ceil(bytes / ALIGNMENT)) * ALIGNMENT;
}

/**
 * Reserves `maximumBytes` of address space; pages take memory only once they are touched. Where the system refuses,
 * half of it, and so on.
 *
 * @throws {OutOfMemoryError} if not even 64 MiB can be had
 */
export function reserveMemory(maximumBytes: number): WebAssembly.Memory {
  let pages = Math.min(65536, Math.floor(maximumBytes / PAGE));
  for (; pages >= 1024; pages = pages >> 1) {
    try {
      return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    } catch {
      // Less address space, then.
    }
  }
  throw new OutOfMemoryError(`wasm: no shared memory of 64 MiB or more to be had (asked for ${maximumBytes} bytes)`);
}

interface Gap {
  start: number;
  bytes: number;
}

/** Bytes a program takes while it runs. */
export interface Demand {
  /** Activations. */
  readonly arena: number;
  /** Scratch that the steps of an operation share. */
  readonly workspace: number;
  /** Private scratch of each thread. */
  readonly scratch: number;
}

/** The layout of one backend's memory. */
export class Layout {
  readonly #gaps: Gap[] = [];
  readonly #sizes = new Map<number, number>();
  #end = allocated(CONTROL_ADDRESS + Control.bytes);
  /** Addresses from here on were never handed out: they still hold zeros. */
  #untouched = this.#end;
  #persistent = 0;
  #arena = 0;
  #workspace = 0;
  #scratch = 0;
  /** Of the programs there are; they share room for the largest of each. */
  readonly #demands = new Set<Demand>();
  /** Lowest address a run may have written; a buffer placed there later is not zero by itself. */
  #lowest = Infinity;
  /** Changes whenever addresses of activations or workspace do. */
  version = 0;

  /** @param zone bytes to leave free before and after every buffer */
  constructor(readonly bytes: number, readonly threads: number, readonly zone = 0) {}

  /** Bytes of persistent buffers. */
  get persistent(): number {
    return this.#persistent;
  }

  /** Bytes of the activations of the largest program. */
  get arena(): number {
    return this.#arena;
  }

  /** Bytes of the kernels' scratch, all threads together. */
  get workspace(): number {
    return this.#workspace + this.#scratch * this.threads;
  }

  /** Private scratch of the first thread; that of the others follows. */
  get scratchAddress(): number {
    return this.bytes - GUARD - this.#scratch * this.threads;
  }

  /** Where the scratch of the last thread ends, and the guard begins. */
  get scratchEnd(): number {
    return this.bytes - GUARD;
  }

  /** Bytes of private scratch of each thread. */
  get scratchBytes(): number {
    return this.#scratch;
  }

  /** Scratch that a step shares with the one after it. */
  get workspaceAddress(): number {
    return this.scratchAddress - this.#workspace;
  }

  /** Address of an activation. They hang from the top, so that a larger arena moves none of them. */
  activationAddress(offset: number, bytes: number): number {
    return this.workspaceAddress - offset - bytes;
  }

  /**
   * Makes room for a program beside `persistent` bytes that are to be allocated next.
   *
   * @throws {OutOfMemoryError} when there is none, and then nothing has changed
   */
  require(demand: Demand, persistent: number, what: string): void {
    const needed = persistent + this.#transientBytes(demand), free = this.bytes - this.#end;
    if (needed > free) throw this.#full(what, needed, free);
    this.#demands.add(demand);
    this.#reserve();
  }

  /** Gives back what a program alone had needed. Nothing may be running. */
  leave(demand: Demand): void {
    if (this.#demands.delete(demand)) this.#reserve();
  }

  /** Whether {@linkcode require} would find room. */
  fits(demand: Demand, persistent: number): boolean {
    return persistent + this.#transientBytes(demand) <= this.bytes - this.#end;
  }

  /** Bytes at the top with one more program. */
  #transientBytes({ arena, workspace, scratch }: Demand): number {
    return GUARD + Math.max(arena, this.#arena) + Math.max(allocated(workspace), this.#workspace) +
      Math.max(allocated(scratch), this.#scratch) * this.threads;
  }

  #reserve(): void {
    const demands = [...this.#demands];
    const most = (what: keyof Demand) => Math.max(0, ...demands.map((demand) => demand[what]));
    const workspace = allocated(most("workspace")), scratch = allocated(most("scratch"));
    if (workspace !== this.#workspace || scratch !== this.#scratch) this.version++;
    this.#arena = most("arena");
    this.#workspace = workspace;
    this.#scratch = scratch;
    this.#lowest = Math.min(this.#lowest, this.transientAddress);
  }

  /** First byte of what runs overwrite: activations, workspace, scratch; it reaches to the end. */
  get transientAddress(): number {
    return this.workspaceAddress - this.#arena;
  }

  /** Address of a new persistent buffer, and how many of its first bytes may not be zero. Throws {OutOfMemoryError} when there is no room. */
  allocate(bytes: number, what: string): { address: number; dirty: number } {
    const size = allocated(bytes + 2 * this.zone);
    const gap = this.#gaps.find((g) => g.bytes >= size);
    let address = this.#end;
    if (gap) {
      address = gap.start;
      gap.start += size;
      gap.bytes -= size;
    } else {
      const room = this.bytes - GUARD - this.#arena - this.workspace - this.#end;
      if (size > room) throw this.#full(what, size, room);
      this.#end += size;
    }
    const dirty = address + size > this.#lowest ? bytes : Math.min(bytes, Math.max(0, this.#untouched - address));
    this.#untouched = Math.max(this.#untouched, address + size);
    this.#sizes.set(address + this.zone, size);
    this.#persistent += size;
    return { address: address + this.zone, dirty };
  }

  /** Gives a buffer back. */
  release(address: number): void {
    const bytes = this.#sizes.get(address);
    if (bytes === undefined) return;
    this.#sizes.delete(address);
    this.#persistent -= bytes;
    this.#gaps.push({ start: address - this.zone, bytes });
    this.#gaps.sort((a, b) => a.start - b.start);
    for (let i = this.#gaps.length - 1; i > 0; i--) {
      const [before, after] = [this.#gaps[i - 1], this.#gaps[i]];
      if (before.start + before.bytes === after.start || after.bytes === 0) {
        before.bytes += after.bytes;
        this.#gaps.splice(i, 1);
      }
    }
    const last = this.#gaps.at(-1);
    if (last && last.start + last.bytes === this.#end) {
      this.#end = last.start;
      this.#gaps.pop();
    }
  }

  #full(what: string, needed: number, available: number): OutOfMemoryError {
    return new OutOfMemoryError(
      `wasm: ${what} needs ${needed} bytes, ${
        Math.max(0, available)
      } of ${this.bytes} are free (the limit is 4 GiB): ` +
        `use a smaller batch, smaller crops, or more parts with --accumulate`,
    );
  }
}
