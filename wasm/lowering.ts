// What the lowering of an operation may ask for, and how work is cut into chunks.
import type { Op, OpKind, OpOf } from "../models/graph/ops/mod.ts";
import type { Tensor } from "../models/graph/tensor.ts";
import type { Code } from "./codes.ts";

/** Takes the steps that an operation becomes. */
export interface Lowering {
  readonly threads: number;
  /** Columns of the register tile, and so of the panels. */
  readonly tileColumns: number;
  /** Address of a tensor's first element; 0 for none. */
  at(t: Tensor | undefined): number;
  /** Where the packed panels of a product's b are kept for those after it, and whether one before it has packed them. */
  panels(op: Op): { readonly address: number; readonly packed: boolean } | undefined;
  /** Address of scratch shared by the steps of this operation. */
  workspace(bytes: number): number;
  /** Asks for private scratch of a thread. */
  scratch(bytes: number): void;
  /** Appends a step of `chunks` independent chunks, with 32-bit arguments. All threads meet before the next one. */
  step(code: Code, chunks: number, args: readonly number[]): void;
}

/** How operations of some kinds become steps. */
export type Lowerings = { readonly [K in OpKind]?: (op: OpOf<K>, to: Lowering) => void };

/** Throws {TypeError} where a program uses a fused form of an operation that has no kernel here. */
export function requirePlain(kind: OpKind, plain: boolean): void {
  if (!plain) {
    throw new TypeError(`simd: ${kind} with another operation on its way in has no kernel here: keep them apart`);
  }
}

/** A lowering whatever the kind. */
export type AnyLowering = (op: Op, to: Lowering) => void;

const bits = new DataView(new ArrayBuffer(4));

/** An argument that the kernel reads as f32. */
export function real(value: number): number {
  bits.setFloat32(0, value);
  return bits.getUint32(0);
}

/** An argument that the kernel reads as a flag. */
export function flag(value: boolean): number {
  return value ? 1 : 0;
}

/** Elements that are worth a chunk of their own; less is done sooner than it is handed over. */
const GRAIN = 4096;

/** Chunks that even out unequal threads. */
const PER_THREAD = 6;

/**
 * Cuts `count` items into chunks of a multiple of `multiple` items, each worth at least {@link GRAIN} elements.
 *
 * @param weight elements an item stands for
 */
export function cut(
  to: { readonly threads: number },
  count: number,
  { weight = 1, multiple = 1 }: { weight?: number; multiple?: number } = {},
): { chunks: number; perChunk: number } {
  const least = Math.ceil(GRAIN / Math.max(1, weight));
  const even = Math.ceil(count / (to.threads * PER_THREAD));
  const perChunk = Math.max(1, Math.ceil(Math.max(least, even) / multiple)) * multiple;
  return { chunks: Math.ceil(count / perChunk), perChunk };
}

/** Cuts `count` items into a number of chunks that depends on the shape alone, for sums whose order must not change. */
export function cutFixed(count: number, weight: number, most: number): { chunks: number; perChunk: number } {
  const perChunk = Math.max(1, Math.ceil(GRAIN / Math.max(1, weight)), Math.ceil(count / most));
  return { chunks: Math.ceil(count / perChunk), perChunk };
}
