// A symbol of a program: a shape, an element type and a role; nothing here computes.

/** Element types a device buffer can hold. */
export type DType = "f32" | "i32" | "u32" | "u8";

/**
 * Why a buffer exists, which decides who allocates it and for how long.
 *
 * - `param`, `state`: live as long as the backend (weights, moments, running statistics, center)
 * - `input`: written by the host before a run; `output`: read by the host after it
 * - `constant`: uploaded once, never written by a program
 * - `activation`: lives within one run, placed in the shared arena by the planner
 */
export type Role = "param" | "state" | "input" | "output" | "constant" | "activation";

/** Typed arrays a tensor's elements travel in. */
export type TensorData = Float32Array | Int32Array | Uint32Array | Uint8Array;

/** A buffer by name and shape. Several operations may write the same tensor; order is program order. */
export interface Tensor {
  /** Identity: programs and backends know tensors by it. */
  readonly id: number;
  /** For people. */
  readonly name: string;
  /** Extents, row-major; empty for a single value. */
  readonly shape: readonly number[];
  /** Type of the elements. */
  readonly dtype: DType;
  /** Who allocates it and for how long. */
  readonly role: Role;
  /** Set for views: this tensor is `base[offset ... offset + size]`, in elements, row-major. */
  readonly base?: Tensor;
  /** First element of a view inside its base. */
  readonly offset?: number;
  /** Contents of a constant. */
  readonly data?: TensorData;
}

let nextId = 0;

/** Makes a tensor that owns its buffer. Throws {RangeError} on a negative or fractional extent. */
export function tensor(
  name: string,
  shape: readonly number[],
  role: Role,
  dtype: DType = "f32",
  data?: TensorData,
): Tensor {
  for (const extent of shape) {
    if (!Number.isSafeInteger(extent) || extent < 0) {
      throw new RangeError(`tensor ${name}: extent ${extent} of shape [${shape}] is not a whole number ≥ 0`);
    }
  }
  const made: Tensor = { id: nextId++, name, shape: Object.freeze([...shape]), dtype, role, data };
  if (data && data.length !== size(made)) {
    throw new RangeError(`constant ${name}: ${data.length} values for shape [${shape}]`);
  }
  return made;
}

/** Views start at multiples of this many bytes, the strictest storage-offset alignment of WebGPU devices. */
export const VIEW_ALIGNMENT = 256;

/** A window of `base` starting at element `offset`; reads and writes go to `base`. Throws {RangeError} past the end or off alignment. */
export function view(base: Tensor, name: string, shape: readonly number[], offset: number): Tensor {
  const root = base.base ?? base;
  const start = (base.offset ?? 0) + offset;
  const made: Tensor = {
    id: nextId++,
    name,
    shape: Object.freeze([...shape]),
    dtype: base.dtype,
    role: base.role,
    base: root,
    offset: start,
  };
  if (start + size(made) > size(root)) {
    throw new RangeError(`view ${name}: elements ${start}…${start + size(made)} exceed ${root.name} [${root.shape}]`);
  }
  if (start * bytesPerElement(root.dtype) % VIEW_ALIGNMENT !== 0) {
    throw new RangeError(
      `view ${name}: element ${start} of ${root.name} is not at a multiple of ${VIEW_ALIGNMENT} bytes`,
    );
  }
  return made;
}

/** The same elements under another shape. */
export function reshape(t: Tensor, shape: readonly number[]): Tensor {
  if (shape.reduce((a, b) => a * b, 1) !== size(t)) {
    throw new RangeError(`reshape ${t.name}: [${t.shape}] has ${size(t)} elements, [${shape}] has another number`);
  }
  return view(t, t.name, shape, 0);
}

/** Number of elements. */
export function size(t: Tensor): number {
  return t.shape.reduce((a, b) => a * b, 1);
}

/** Bytes of one element. */
export function bytesPerElement(dtype: DType): number {
  return dtype === "u8" ? 1 : 4;
}

/** Bytes of the elements, without padding. */
export function byteLength(t: Tensor): number {
  return size(t) * bytesPerElement(t.dtype);
}

/** The tensor that owns the buffer `t` looks into. */
export function rootOf(t: Tensor): Tensor {
  return t.base ?? t;
}

/** An empty host array of the tensor's element type and size. */
export function hostArray(t: Tensor): TensorData {
  const n = size(t);
  switch (t.dtype) {
    case "f32":
      return new Float32Array(n);
    case "i32":
      return new Int32Array(n);
    case "u32":
      return new Uint32Array(n);
    case "u8":
      return new Uint8Array(n);
  }
}
