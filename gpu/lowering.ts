// Program → dispatches, without a device: so that scratch bytes are known before one is opened.
import { dropUnreadOutputs } from "../models/graph/autodiff.ts";
import { OutOfMemoryError, type Precision } from "../models/graph/backend.ts";
import type { Prologue } from "../models/graph/ops/matmul.ts";
import type { Program } from "../models/graph/program.ts";
import type { Op, OpOf } from "../models/graph/ops/mod.ts";
import { planMemory } from "../models/graph/plan.ts";
import { bytesPerElement, rootOf, size, type Tensor } from "../models/graph/tensor.ts";
import type { AdapterSummary } from "./device.ts";
import { LANE_COUNTS } from "./kernels/lane_product.ts";
import { type Binding, type Dispatch, NOTHING, type Params } from "./dispatch.ts";
import type { Kernel } from "./shader.ts";
import { type AttentionChooser, guessAttention, hungriestAttention } from "./attention_choice.ts";
import { inTiles } from "./tiles.ts";
import { withSubgroups } from "./subgroups.ts";
import { withHalfBindings } from "./half.ts";
import { lowerOp } from "./ops/mod.ts";
import { movePrologues, type PrologueUse } from "./prologues.ts";
import { HALF_BYTES, type Stored, storedBytes, storedProgram } from "./storage.ts";
import { chooseTile, type TileChoice } from "./kernels/matmul_tiles.ts";

/** What lowering must know of the device. */
export interface LoweringLimits {
  /** Largest storage binding in bytes. */
  readonly bindingBytes: number;
  /** Memory of a workgroup in bytes. */
  readonly workgroupBytes: number;
  /** A software adapter: short kernels, which build fast. */
  readonly fallback: boolean;
  /** Whether sums and maxima over rows meet in subgroups, which changes no bit. */
  readonly subgroups: boolean;
  /** On a software adapter with subgroups of a size the lane kernels are written for, that size; else 0. */
  readonly lanes: number;
  /** Which operations products do as they read their operands. */
  readonly prologues: PrologueUse;
}

/** WebGPU's default limits, for planning without a device. */
export const DEFAULT_LIMITS: LoweringLimits = {
  bindingBytes: 2 ** 31 - 4,
  workgroupBytes: 32768,
  fallback: false,
  subgroups: false,
  lanes: 0,
  prologues: "saving",
};

/** What to plan for on an adapter, whether or not it has been opened. */
export function loweringLimits(
  { fallback, limits }: AdapterSummary,
  subgroupSize: number,
  granted: { maxStorageBufferBindingSize: number; maxComputeWorkgroupStorageSize: number } = {
    maxStorageBufferBindingSize: Math.min(limits.maxStorageBufferBindingSize, DEFAULT_LIMITS.bindingBytes),
    maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
  },
): LoweringLimits {
  return {
    bindingBytes: granted.maxStorageBufferBindingSize,
    workgroupBytes: granted.maxComputeWorkgroupStorageSize,
    fallback,
    subgroups: false, // until the device has shown that its subgroups lie in order
    lanes: fallback && LANE_COUNTS.includes(subgroupSize) ? subgroupSize : 0,
    // Instructions are what a software adapter is short of.
    prologues: fallback ? "none" : "saving",
  };
}

/** Which variant a product takes; the default is a guess from the shape, a tuner knows better. */
export type MatmulChooser = (shape: MatmulShape, limits: LoweringLimits) => TileChoice;

/** What the choice of a product's variant depends on. */
export interface MatmulShape {
  /** Rows of the result. */
  readonly m: number;
  /** Columns of the result. */
  readonly n: number;
  /** Products in each sum. */
  readonly k: number;
  /** A is stored [k, m]. */
  readonly transA: boolean;
  /** B is stored [n, k]. */
  readonly transB: boolean;
  /** What A goes through as it is read. */
  readonly prologueA?: Prologue;
  /** What B goes through. */
  readonly prologueB?: Prologue;
  /** Which of a, b and c are kept as f16, by their letters. */
  readonly halves?: string;
}

/** Which of a, b and c of a product are among the tensors that are kept as f16. */
export function halvesOfProduct(op: OpOf<"matmul">, halves: ReadonlySet<number>): string {
  if (halves.size === 0) return "";
  const slots = { a: op.in.a, b: op.in.b, c: op.out.c };
  return Object.entries(slots).filter(([, t]) => halves.has(rootOf(t).id)).map(([slot]) => slot).join("");
}

/** A lowered program. */
export interface Lowered {
  readonly dispatches: readonly Dispatch[];
  /** Scratch space of the hungriest operation; operations run one after another and share it. */
  readonly scratchBytes: number;
}

/**
 * Lowers every operation of `program`, whose unread outputs have been dropped.
 *
 * @param halves ids of the tensors that are kept as f16
 */
export function lower(
  program: Program,
  limits: LoweringLimits,
  chooseMatmul: MatmulChooser = chooseTile,
  halves: ReadonlySet<number> = new Set(),
  chooseAttention: AttentionChooser = guessAttention,
): Lowered {
  const lowering = new Lowering(limits, chooseMatmul, halves, chooseAttention);
  program.ops.forEach((op, i) => lowering.operation(op, i));
  return lowering;
}

/**
 * Scratch bytes a program takes at most on this backend, whatever a tuner chooses, besides persistent tensors and the activation
 * arena. Needs no device.
 */
export function workspaceBytes(
  program: Program,
  limits: Partial<LoweringLimits> = {},
  precision: Precision = "f32",
): number {
  const all = { ...DEFAULT_LIMITS, ...limits };
  const stored = prepareProgram(program, all, precision);
  return lower(stored.program, all, chooseTile, stored.halves, hungriestAttention).scratchBytes;
}

/** Bytes of the arena that a program's activations share on this backend. Needs no device. */
export function arenaBytes(
  program: Program,
  precision: Precision = "f32",
  limits: Partial<LoweringLimits> = {},
): number {
  const stored = prepareProgram(program, { ...DEFAULT_LIMITS, ...limits }, precision);
  return planMemory(stored.program, { bytesOf: (root) => storedBytes(root, stored.halves) }).arenaBytes;
}

/** The program as this backend runs it: unread outputs dropped, operations moved into products, weights copied to halves. */
export function prepareProgram(
  program: Program,
  { prologues }: Pick<LoweringLimits, "prologues">,
  precision: Precision,
): Stored {
  dropUnreadOutputs(program);
  return storedProgram(movePrologues(program, prologues), precision);
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

  /** Lowers one operation. */
  operation(op: Op, index: number): void {
    this.#op = index;
    for (const part of inTiles(op, this.limits.bindingBytes, (t) => this.bytesOf(t))) {
      this.#scratch = 0;
      lowerOp(this, part);
    }
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
