// What operations are lowered into: dispatches one after another, and the scratch space they share.
import { OutOfMemoryError } from "../models/graph/backend.ts";
import { bytesPerElement, rootOf, size, type Tensor } from "../models/graph/tensor.ts";
import { type AttentionChooser, guessAttention } from "./attention_choice.ts";
import { type Binding, type Dispatch, NOTHING, type Params } from "./dispatch.ts";
import { withHalfBindings } from "./half.ts";
import type { MatmulChooser } from "./kernels/matmul_tiles.ts";
import type { LoweringLimits } from "./limits.ts";
import type { Kernel } from "./shader.ts";
import { HALF_BYTES } from "./storage.ts";
import { withSubgroups } from "./subgroups.ts";

/** A lowered program. */
export interface Lowered {
  readonly dispatches: readonly Dispatch[];
  /** Scratch space of the hungriest operation; operations run one after another and share it. */
  readonly scratchBytes: number;
}

/** Collects dispatches; the functions in `ops/` write into it. */
export class Lowering implements Lowered {
  readonly dispatches: Dispatch[] = [];
  scratchBytes = 0;
  #op = 0;
  #scratch = 0;

  constructor(
    readonly limits: LoweringLimits,
    readonly chooseMatmul: MatmulChooser,
    readonly halves: ReadonlySet<number> = new Set(),
    readonly chooseAttention: AttentionChooser = guessAttention,
  ) {}

  /** What follows belongs to operation `index` of the program, and has all scratch space to itself. */
  begin(index: number): void {
    this.#op = index;
    this.#scratch = 0;
  }

  /** Bytes of a tensor as it is stored. */
  readonly bytesOf = (t: Tensor): number => size(t) * (this.isHalf(t) ? HALF_BYTES : bytesPerElement(t.dtype));

  /** Gives back the scratch space that `emit` took, for what follows. */
  within(emit: () => void): void {
    const before = this.#scratch;
    emit();
    this.#scratch = before;
  }

  /** The binding of a slot; an absent tensor binds nothing. */
  of(t: Tensor | undefined): Binding {
    if (!t) return NOTHING;
    const element = this.isHalf(t) ? HALF_BYTES : bytesPerElement(t.dtype);
    const bytes = Math.max(4, Math.ceil(size(t) * element / 4) * 4);
    if (bytes > this.limits.bindingBytes) {
      throw new OutOfMemoryError(
        `webgpu: ${t.name} [${t.shape}] takes ${bytes} bytes, this adapter binds at most ${this.limits.bindingBytes}: ` +
          "use a smaller batch, crop or output dimension",
      );
    }
    return { kind: "tensor", tensor: t, offset: (t.offset ?? 0) * element, bytes };
  }

  /** Whether a tensor is kept as f16. */
  isHalf(t: Tensor): boolean {
    return this.halves.has(rootOf(t).id);
  }

  /** Space for intermediate results of the operation being lowered. */
  scratch(bytes: number): Binding {
    if (bytes > this.limits.bindingBytes) {
      throw new OutOfMemoryError(
        `webgpu: an operation needs ${bytes} bytes of scratch space, this adapter binds at most ` +
          `${this.limits.bindingBytes}: use a smaller batch or crop`,
      );
    }
    const offset = this.#scratch;
    this.#scratch = Math.ceil((offset + Math.max(bytes, 16)) / 256) * 256;
    this.scratchBytes = Math.max(this.scratchBytes, this.#scratch);
    return { kind: "scratch", offset, bytes: Math.max(16, Math.ceil(bytes / 16) * 16) };
  }

  /** Appends a dispatch, unless it has no work. */
  emit(kernel: Kernel, bindings: readonly Binding[], params: Params, groups: number): void {
    if (groups <= 0) return;
    const halves = bindings.flatMap((b, slot) => b.kind === "tensor" && this.isHalf(b.tensor) ? [slot] : []);
    const meeting = this.limits.subgroups ? withSubgroups(kernel) : kernel;
    this.dispatches.push({ kernel: withHalfBindings(meeting, halves), bindings, params, groups, op: this.#op });
  }
}
