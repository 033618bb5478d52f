// Buffers of a backend: one a persistent tensor, an arena of chunks for activations, scratch space for kernels.
import { OutOfMemoryError } from "../models/graph/backend.ts";
import { byteLength, rootOf, type Tensor } from "../models/graph/tensor.ts";
import type { Binding } from "./dispatch.ts";

const USAGE = 0x80 | 0x04 | 0x08; // GPUBufferUsage.STORAGE | COPY_SRC | COPY_DST
const UNIFORM = 0x40 | 0x08; // GPUBufferUsage.UNIFORM | COPY_DST
const BUFFER_ALIGNMENT = 256;
/** Slots a dispatch can leave empty; each gets its own range, because bindings of one dispatch may not overlap. */
const EMPTY_SLOTS = 16;

/** Part of a buffer, as a bind group takes it. */
export interface Place {
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly size: number;
}

/** What room there is. */
export interface MemoryLimits {
  /** The largest buffer of the arena; a plan lets no activation cross a multiple of it. */
  readonly chunkBytes: number;
  /** All buffers together; default what the device gives. */
  readonly maximumBytes?: number;
}

/** Allocates and finds buffers. */
export class Memory {
  /** Grows by one whenever the arena or the scratch space was replaced: bind groups made before are stale. */
  generation = 0;
  persistentBytes = 0;
  arenaBytes = 0;
  readonly #persistent = new Map<number, GPUBuffer>();
  readonly #tables = new WeakMap<Uint32Array, GPUBuffer>();
  #arena: GPUBuffer[] = [];
  #scratch: GPUBuffer | undefined;
  readonly #nothing: GPUBuffer;
  readonly chunkBytes: number;
  readonly maximumBytes: number;

  constructor(readonly device: GPUDevice, { chunkBytes, maximumBytes = Infinity }: MemoryLimits) {
    this.chunkBytes = chunkBytes;
    this.maximumBytes = maximumBytes;
    this.#nothing = this.#buffer("nothing", EMPTY_SLOTS * BUFFER_ALIGNMENT);
  }

  /** Bytes of everything but tables and parameter blocks. */
  get bytes(): number {
    return this.persistentBytes + this.arenaBytes + this.scratchBytes;
  }

  /** Whether a persistent tensor has its buffer already. */
  holds(t: Tensor): boolean {
    return this.#persistent.has(rootOf(t).id);
  }

  get scratchBytes(): number {
    return this.#scratch?.size ?? 0;
  }

  /** The buffer of a persistent tensor's root, zeroed or filled with its constant when it is made here. */
  persistent(t: Tensor): GPUBuffer {
    const root = rootOf(t);
    let buffer = this.#persistent.get(root.id);
    if (!buffer) {
      buffer = this.#buffer(root.name, byteLength(root), root.data);
      this.#persistent.set(root.id, buffer);
      this.persistentBytes += buffer.size;
    }
    return buffer;
  }

  /** Frees the buffers of tensors that own one. */
  free(tensors: readonly Tensor[]): void {
    for (const t of tensors) {
      const buffer = t.base ? undefined : this.#persistent.get(t.id);
      if (!buffer) continue;
      this.persistentBytes -= buffer.size;
      buffer.destroy();
      this.#persistent.delete(t.id);
      this.generation++;
    }
  }

  /** Frees arena and scratch space, which earlier programs find again at the size they knew. */
  dropShared(): void {
    for (const buffer of this.#arena) buffer.destroy();
    this.#arena = [];
    this.arenaBytes = 0;
    this.#scratch?.destroy();
    this.#scratch = undefined;
    this.generation++;
  }

  /** Makes arena and scratch space at least this large; contents are lost when they grow. */
  reserve(arenaBytes: number, scratchBytes: number): void {
    if (arenaBytes > this.arenaBytes) {
      for (const buffer of this.#arena) buffer.destroy();
      this.#arena = [];
      this.arenaBytes = 0;
      for (let at = 0; at < arenaBytes; at += this.chunkBytes) {
        this.#arena.push(this.#buffer(`activations ${this.#arena.length}`, Math.min(this.chunkBytes, arenaBytes - at)));
      }
      this.arenaBytes = arenaBytes;
      this.generation++;
    }
    if (scratchBytes > this.scratchBytes) {
      this.#scratch?.destroy();
      this.#scratch = this.#buffer("scratch", scratchBytes);
      this.generation++;
    }
  }

  /** Where a binding lies. `slot` is its place among the bindings of the dispatch, `offsets` the plan of the program. */
  place(binding: Binding, slot: number, offsets: ReadonlyMap<number, number>): Place {
    switch (binding.kind) {
      case "nothing":
        return { buffer: this.#nothing, offset: slot * BUFFER_ALIGNMENT, size: BUFFER_ALIGNMENT };
      case "table":
        return this.#table(binding.data);
      case "scratch":
        return { buffer: this.#scratch!, offset: binding.offset, size: binding.bytes };
      case "tensor": {
        const { tensor, offset, bytes } = binding;
        if (tensor.role !== "activation") return { buffer: this.persistent(tensor), offset, size: bytes };
        const at = offsets.get(rootOf(tensor).id)! + offset;
        return { buffer: this.#arena[Math.floor(at / this.chunkBytes)], offset: at % this.chunkBytes, size: bytes };
      }
    }
  }

  /** A buffer of parameter blocks. */
  uniforms(data: Uint8Array): GPUBuffer {
    const buffer = this.device.createBuffer({ label: "parameters", size: data.length, usage: UNIFORM });
    this.device.queue.writeBuffer(buffer, 0, data as Uint8Array<ArrayBuffer>);
    return buffer;
  }

  /** Frees everything. */
  close(): void {
    for (const buffer of this.#persistent.values()) buffer.destroy();
    for (const buffer of this.#arena) buffer.destroy();
    this.#scratch?.destroy();
    this.#nothing.destroy();
    this.#persistent.clear();
  }

  #table(data: Uint32Array): Place {
    let buffer = this.#tables.get(data);
    if (!buffer) {
      buffer = this.#buffer("table", data.byteLength, data);
      this.#tables.set(data, buffer);
    }
    return { buffer, offset: 0, size: Math.max(16, data.byteLength) };
  }

  #buffer(label: string, bytes: number, data?: ArrayBufferView): GPUBuffer {
    const size = Math.max(BUFFER_ALIGNMENT, Math.ceil(bytes / BUFFER_ALIGNMENT) * BUFFER_ALIGNMENT);
    const { maxBufferSize } = this.device.limits;
    if (size > maxBufferSize) {
      throw new OutOfMemoryError(
        `webgpu: ${label} takes ${size} bytes, this adapter's buffers at most ${maxBufferSize}: ` +
          "use a smaller batch, crop or output dimension",
      );
    }
    if (this.bytes + size > this.maximumBytes) {
      throw new OutOfMemoryError(
        `${label} takes ${size} bytes, ${this.maximumBytes - this.bytes} of ${this.maximumBytes} are left`,
      );
    }
    const buffer = this.device.createBuffer({ label, size, usage: USAGE, mappedAtCreation: data !== undefined });
    if (data) {
      new Uint8Array(buffer.getMappedRange()).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
      buffer.unmap();
    }
    return buffer;
  }
}
