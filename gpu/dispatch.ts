// What lowering produces: dispatches that name kernels, bindings and parameters, and touch no device.
import { OutOfMemoryError } from "../models/graph/backend.ts";
import type { Kernel } from "./shader.ts";
import type { Tensor } from "../models/graph/tensor.ts";

/** Storage a dispatch reads or writes: a tensor, the backend's scratch space, or nothing (an absent optional slot). */
export type Binding =
  | { readonly kind: "tensor"; readonly tensor: Tensor; readonly offset: number; readonly bytes: number }
  | { readonly kind: "scratch"; readonly offset: number; readonly bytes: number }
  | { readonly kind: "table"; readonly data: Uint32Array }
  | { readonly kind: "nothing" };

/** Parameters as the kernels' `Params` structs hold them: whole numbers first, then floats. */
export interface Params {
  readonly u?: readonly number[];
  readonly f?: readonly number[];
}

/** One dispatch. */
export interface Dispatch {
  readonly kernel: Kernel;
  readonly bindings: readonly Binding[];
  readonly params: Params;
  /** Workgroups; the kernels fold two dimensions back into one number. */
  readonly groups: number;
  /** Which operation of the program it belongs to. */
  readonly op: number;
}

/** A dispatch made ready. */
export interface ReadyDispatch {
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  readonly x: number;
  readonly y: number;
  readonly op: number;
}

/** An absent optional slot. */
export const NOTHING: Binding = { kind: "nothing" };

/** WebGPU's limit on workgroups in one dimension. */
const MAX_GROUPS = 65535;

/** A workgroup count as x × y, each within the limit; x·y may exceed `groups`, kernels check. */
export function fold(groups: number): [x: number, y: number] {
  if (groups <= MAX_GROUPS) return [groups, 1];
  const y = Math.ceil(groups / MAX_GROUPS);
  if (y > MAX_GROUPS) {
    throw new OutOfMemoryError(`webgpu: ${groups} workgroups exceed ${MAX_GROUPS}²: use a smaller batch`);
  }
  return [Math.ceil(groups / y), y];
}

/** Bytes a dispatch's parameters take. */
export function paramBytes({ u = [], f = [] }: Params): number {
  return Math.max(16, Math.ceil((u.length + f.length) / 4) * 16);
}

/** Writes parameters at `offset`. */
export function writeParams(view: DataView, offset: number, { u = [], f = [] }: Params): void {
  u.forEach((value, i) => view.setUint32(offset + 4 * i, value, true));
  f.forEach((value, i) => view.setFloat32(offset + 4 * (u.length + i), value, true));
}
