// The WebGPU backend: compile lowers and allocates, run submits, write and read copy.
import { type Executable, type MemoryUse, OutOfMemoryError, type Precision } from "../models/graph/backend.ts";
import { ALONE, type Communicator } from "../models/graph/communicator.ts";
import { requireRanks } from "../models/graph/ops/collective.ts";
import { planMemory } from "../models/graph/plan.ts";
import type { Program } from "../models/graph/program.ts";
import { byteLength, bytesPerElement, hostArray, size, type Tensor, type TensorData } from "../models/graph/tensor.ts";
import { bindOnce } from "./alias.ts";
import { writeBytes } from "./bytes.ts";
import { attentionCandidates, type AttentionChooser, type AttentionShape } from "./attention_choice.ts";
import type { Tuner } from "./autotune.ts";
import { describeDevice } from "./describe.ts";
import { type AdapterSummary, messageOf, type OpenedDevice } from "./device.ts";
import { GpuExecutable, type Host } from "./executable.ts";
import type { MatmulChooser, MatmulShape } from "./kernels/matmul_tiles.ts";
import { type LoweringLimits, loweringLimits } from "./limits.ts";
import { lower, prepareProgram } from "./lower.ts";
import { Memory } from "./memory.ts";
import { Pacer } from "./pace.ts";
import { PipelineCache } from "./shader.ts";
import type { PrologueUse } from "./prologues.ts";
import { storedBytes } from "./storage.ts";
import { type AttentionTuning, compareAttention } from "./tuning/attention.ts";
import { compareTiles, tilesFor, type TuningResult } from "./tuning/matmul.ts";
import { TuningOperands } from "./tuning/operands.ts";
import type { CompileOptions, Tunable } from "./tuning/tunable.ts";

const MAP_READ_COPY_DST = 0x01 | 0x08; // GPUBufferUsage.MAP_READ | COPY_DST

/** What is written lies in staging memory until the next submission: so much of it, and a submission without work sends it off. */
const MOST_UNSENT = 2 ** 28;

/** How a backend uses its device. */
export interface BackendOptions {
  /** Size of the arena's buffers, for tests; default what the device allows. */
  readonly chunkBytes?: number;
  /** See {@link WebGpuBackend.strict}; default false. */
  readonly strict?: boolean;
  /** Of all buffers; default what the device gives. */
  readonly maximumBytes?: number;
  /** See {@link WebGpuBackend.precision}; default f32. */
  readonly precision?: Precision;
  /** Which operations products do as they read their operands; default what pays on the adapter. */
  readonly prologues?: PrologueUse;
}

/** Runs programs on a WebGPU device. */
export class WebGpuBackend implements Tunable, Host {
  readonly name = "webgpu";
  readonly description: string;
  readonly device: GPUDevice;
  readonly timestamps: boolean;
  readonly adapter: AdapterSummary;
  /** What kernels are lowered for; a test may narrow it before compiling. */
  limits: LoweringLimits;
  readonly buffers: Memory;
  readonly pipelines: PipelineCache;
  /** Replaces the guess which variant a product takes; a test sets it before compiling. */
  chooseMatmul: MatmulChooser | undefined;
  /** Replaces the guess which kernels an attention takes; a test sets it before compiling. */
  chooseAttention: AttentionChooser | undefined;
  /** Finds the best tiles of a program before it is compiled; none on a software adapter. */
  tuner: Tuner | undefined;
  readonly #pacer: Pacer;
  #failure: Error | undefined;
  /** Bytes written since the last submission. */
  #unsent = 0;
  #closed = false;
  /** Milliseconds spent waiting for the device. */
  waited = 0;

  /** Whether memory may be bound once only in a dispatch, as the standard has it; Deno's wgpu is less strict. */
  readonly strict: boolean;

  /** What activations and copies of weights are kept as. */
  readonly precision: Precision;

  constructor(
    opened: OpenedDevice,
    { chunkBytes = Infinity, maximumBytes = Infinity, strict = false, precision = "f32", prologues }: BackendOptions =
      {},
  ) {
    this.strict = strict;
    this.precision = precision;
    const { device, summary } = opened;
    this.device = device;
    this.adapter = summary;
    this.timestamps = opened.timestamps;
    this.description =
      `${strict ? "WebGPU of another implementation" : "WebGPU"}, ${summary.description}${
        summary.fallback ? " (software)" : ""
      }` +
      (precision === "f16" ? ", f16 storage" : "");
    const { limits } = device;
    this.limits = loweringLimits(summary, opened.subgroupSize, limits);
    if (prologues) this.limits = { ...this.limits, prologues };
    this.buffers = new Memory(device, {
      chunkBytes: Math.floor(Math.min(limits.maxBufferSize, chunkBytes) / 256) * 256,
      maximumBytes,
    });
    this.pipelines = new PipelineCache(device);
    this.#pacer = new Pacer(() => this.#wait());
    device.addEventListener("uncapturederror", (event) => {
      event.preventDefault();
      const { error } = event as GPUUncapturedErrorEvent;
      this.#fail(
        error.constructor.name === "GPUOutOfMemoryError"
          ? `out of memory on the device (${error.message}): use a smaller batch, crop or output dimension${this.#orHalves}`
          : `the device reported an error: ${error.message}`,
      );
    });
    device.lost.then((info) => {
      if (!this.#closed) {
        this.#fail(`the device was lost (${info.reason}): ${info.message}`);
      }
    });
  }

  get tuned(): readonly TuningResult[] {
    return this.tuner?.results ?? [];
  }

  get tunedAttention(): readonly AttentionTuning[] {
    return this.tuner?.attention ?? [];
  }

  get tuningSeconds(): number {
    return this.tuner?.seconds ?? 0;
  }

  compareTiles(shape: MatmulShape): Promise<TuningResult> {
    return this.#comparing((operands) => compareTiles(operands, shape, tilesFor(this.limits)));
  }

  compareAttention(shape: AttentionShape): Promise<AttentionTuning> {
    return this.#comparing((operands) => compareAttention(operands, shape, attentionCandidates(shape, this.limits)));
  }

  async #comparing<T>(compare: (operands: TuningOperands) => Promise<T>): Promise<T> {
    const operands = new TuningOperands(this);
    try {
      return await compare(operands);
    } finally {
      operands.free();
    }
  }

  get fingerprint(): string {
    return this.description;
  }

  get details(): readonly string[] {
    return describeDevice(this.adapter, this.device, this.limits.subgroups);
  }

  get #storesHalves(): boolean {
    return this.adapter.features.includes("shader-f16");
  }

  /** The end of an advice to take less memory. */
  get #orHalves(): string {
    return this.precision === "f32" && this.#storesHalves ? ", or precision f16" : "";
  }

  get memory(): MemoryUse {
    const { persistentBytes, arenaBytes, scratchBytes } = this.buffers;
    return { persistent: persistentBytes, arena: arenaBytes, workspace: scratchBytes };
  }

  async compile(program: Program, communicator?: Communicator): Promise<Executable> {
    requireRanks(program, communicator);
    await this.tuner?.prepare(program);
    return await this.compileWith(program, {
      matmul: this.chooseMatmul ?? this.tuner?.choose,
      attention: this.chooseAttention ?? this.tuner?.chooseAttention,
      communicator,
    });
  }

  /** Compiles with given variants of products and attention. */
  async compileWith(
    program: Program,
    { matmul, attention, kept, communicator = ALONE }: CompileOptions = {},
  ): Promise<Executable> {
    this.check();
    const { program: stored, halves } = kept
      ? { program, halves: kept }
      : prepareProgram(program, this.limits, this.precision);
    const plan = planMemory(stored, {
      chunkBytes: this.buffers.chunkBytes,
      bytesOf: (root) => storedBytes(root, halves),
    });
    const lowered = lower(stored, this.limits, matmul, halves, attention);
    const dispatches = this.strict ? lowered.dispatches.map((d) => bindOnce(d, plan.offsets)) : lowered.dispatches;
    await this.#allocate(program, plan.arenaBytes, lowered.scratchBytes);
    const pipelines = await Promise.all(
      dispatches.map(({ kernel, bindings }) => this.pipelines.get(kernel, bindings.length)),
    );
    this.check();
    return new GpuExecutable(stored, plan, dispatches, pipelines, this, communicator);
  }

  async holds(programs: readonly Program[], precision: Precision = this.precision): Promise<boolean> {
    this.check();
    if (precision === "f16" && !this.#storesHalves) return false;
    const { chunkBytes, maximumBytes } = this.buffers;
    const roots = new Set<Tensor>();
    let arenaBytes = 0, scratchBytes = 0;
    for (const program of programs) {
      const { program: stored, halves } = prepareProgram(program, this.limits, precision);
      const plan = planMemory(stored, { chunkBytes, bytesOf: (root) => storedBytes(root, halves) });
      try {
        const attention = this.chooseAttention ?? this.tuner?.expectAttention;
        const lowered = lower(stored, this.limits, this.chooseMatmul ?? this.tuner?.choose, halves, attention);
        scratchBytes = Math.max(scratchBytes, lowered.scratchBytes);
      } catch (error) {
        if (error instanceof OutOfMemoryError) return false; // a single tensor is more than can be bound
        throw error;
      }
      arenaBytes = Math.max(arenaBytes, plan.arenaBytes);
      for (const root of this.#newRoots(program)) roots.add(root);
    }
    const { arena, workspace } = this.memory;
    const added = [...roots].map((root) => Math.ceil(Math.max(1, byteLength(root)) / 256) * 256);
    for (let rest = arenaBytes - arena; rest > 0; rest -= chunkBytes) added.push(Math.min(rest, chunkBytes));
    if (scratchBytes > workspace) added.push(scratchBytes - workspace);
    if (this.buffers.bytes + added.reduce((a, b) => a + b, 0) > maximumBytes) return false;
    if (added.some((bytes) => bytes > this.device.limits.maxBufferSize)) return false;
    // Only trying tells what a device has left.
    const probes: GPUBuffer[] = [];
    const refused = await this.#errorsOf(() => {
      for (const size of added) probes.push(this.device.createBuffer({ size: Math.ceil(size / 16) * 16, usage: 0x80 }));
    });
    for (const probe of probes) probe.destroy();
    return refused === undefined;
  }

  write(t: Tensor, data: TensorData, offset = 0): void {
    this.check();
    if (t.role === "activation") throw new TypeError(`webgpu: ${t.name} is an activation, which lives within a run`);
    if (offset + data.length > size(t)) {
      throw new RangeError(`webgpu: ${data.length} elements at ${offset} exceed ${t.name} [${t.shape}]`);
    }
    if (data.BYTES_PER_ELEMENT !== bytesPerElement(t.dtype)) {
      throw new TypeError(`webgpu: ${t.name} holds ${t.dtype}, not elements of ${data.BYTES_PER_ELEMENT} bytes`);
    }
    const bytes = new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
    const at = ((t.offset ?? 0) + offset) * bytesPerElement(t.dtype);
    writeBytes(this.device, this.buffers.persistent(t), at, bytes);
    this.#unsent += bytes.length;
    if (this.#unsent < MOST_UNSENT) return;
    this.device.queue.submit([]);
    this.#unsent = 0;
  }

  async read(t: Tensor): Promise<TensorData> {
    this.check();
    if (t.role === "activation") throw new TypeError(`webgpu: ${t.name} is an activation, which lives within a run`);
    const start = (t.offset ?? 0) * bytesPerElement(t.dtype), length = byteLength(t);
    const result = hostArray(t);
    if (length === 0) return result;
    const from = Math.floor(start / 4) * 4, bytes = Math.ceil((start + length) / 4) * 4 - from;
    const readable = this.device.createBuffer({ label: `read ${t.name}`, size: bytes, usage: MAP_READ_COPY_DST });
    try {
      const encoder = this.device.createCommandEncoder();
      encoder.copyBufferToBuffer(this.buffers.persistent(t), from, readable, 0, bytes);
      this.device.queue.submit([encoder.finish()]);
      await readable.mapAsync(1 /* GPUMapMode.READ */);
      this.check();
      this.#pacer.drained();
      new Uint8Array(result.buffer).set(new Uint8Array(readable.getMappedRange(), start - from, length));
      return result;
    } catch (thrown) {
      this.check();
      throw new Error(`webgpu: reading ${t.name} failed: ${messageOf(thrown)}`, { cause: thrown });
    } finally {
      readable.destroy();
    }
  }

  async finish(): Promise<void> {
    this.check();
    await this.#wait();
    this.check();
    this.#pacer.drained();
  }

  async #wait(): Promise<void> {
    const start = performance.now();
    await this.device.queue.onSubmittedWorkDone();
    this.waited += performance.now() - start;
  }

  free(...tensors: Tensor[]): void {
    this.buffers.free(tensors);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.device.queue.onSubmittedWorkDone().catch(() => {});
    this.buffers.close();
    this.device.destroy();
  }

  check(): void {
    if (this.#closed) throw new Error("webgpu: the backend is closed");
    if (this.#failure) throw this.#failure;
  }

  async pace(): Promise<void> {
    this.#unsent = 0;
    await this.#pacer.submitted();
    this.check();
  }

  /** Keeps the first failure: what follows it is only its consequence. */
  #fail(message: string): void {
    this.#failure ??= new Error(`webgpu: ${message}`);
  }

  #newRoots(program: Program): Tensor[] {
    return program.roots().filter((root) => root.role !== "activation" && !this.buffers.holds(root));
  }

  /** Makes room for a program. Rejects {OutOfMemoryError} if there is none, and then the backend is as it was before. */
  async #allocate(program: Program, arenaBytes: number, scratchBytes: number): Promise<void> {
    const fresh = this.#newRoots(program), { arena, workspace } = this.memory;
    const refusal = await this.#errorsOf(() => {
      for (const root of fresh) this.buffers.persistent(root);
      this.buffers.reserve(arenaBytes, scratchBytes);
    });
    if (refusal === undefined) return;
    this.buffers.free(fresh);
    this.buffers.dropShared();
    await this.#errorsOf(() => this.buffers.reserve(arena, workspace));
    const bytes = fresh.reduce((sum, root) => sum + byteLength(root), 0) + arenaBytes + scratchBytes;
    throw new OutOfMemoryError(
      `webgpu: ${program.name} needs ${bytes} bytes more on the device, which refused (${refusal}): ` +
        `use a smaller batch, crop or output dimension${this.#orHalves}`,
    );
  }

  /** Arena and scratch space of the sizes they had, if they have grown since. */
  shrinkShared({ arena, workspace }: MemoryUse): void {
    if (this.#closed || this.#failure || arena === this.memory.arena && workspace === this.memory.workspace) return;
    this.buffers.dropShared();
    this.buffers.reserve(arena, workspace);
  }

  /** What the device or the allocator says against an allocation; undefined if nothing. */
  async #errorsOf(allocate: () => void): Promise<string | undefined> {
    this.device.pushErrorScope("out-of-memory");
    this.device.pushErrorScope("validation");
    let thrown: unknown;
    try {
      allocate();
    } catch (error) {
      thrown = error;
    }
    const errors = [await this.device.popErrorScope(), await this.device.popErrorScope()];
    this.check();
    return thrown === undefined ? errors.find((e) => e !== null)?.message : messageOf(thrown);
  }
}
