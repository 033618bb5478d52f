// What every file of weights is read as: named tensors, each fetched when it is asked for.

import type { SafetensorsDType } from "./safetensors.ts";

/** A tensor of a file, before its elements are read. */
export interface TensorInfo {
  /** Unique in its file. */
  readonly name: string;
  /** Type of its elements. */
  readonly dtype: SafetensorsDType;
  /** Extents; none for a scalar. */
  readonly shape: readonly number[];
}

/** An open file, or folder, of weights. Close it after use. */
export interface TensorFile {
  /** For messages. */
  readonly name: string;
  /** What it is, in words, e.g. `safetensors` or `PyTorch (zip)`. */
  readonly format: string;
  /** By name, in the file's order. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** Strings that travel with the tensors. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Architecture a Hugging Face folder describes beside the weights. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** What a Hugging Face folder says is done to images, as it stands in its preprocessor_config.json. */
  readonly preprocessor?: Readonly<Record<string, unknown>>;
  /** The whole object of a PyTorch file, tensors included, for who wants more than tensors. */
  readonly object?: unknown;
  /** Elements of a tensor of this file, contiguous and little-endian. */
  read(info: TensorInfo): Promise<Uint8Array<ArrayBuffer>>;
  /** Lets go of the file. */
  close(): void;
}

export { ELEMENT_BYTES } from "./safetensors.ts";

/** Elements of a shape. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, extent) => product * extent, 1);
}

/** Whether the elements are floating point. */
export function isFloat(dtype: SafetensorsDType): boolean {
  return dtype === "F32" || dtype === "F16" || dtype === "BF16" || dtype === "F64";
}

/** Any elements as 64-bit floats; integers beyond 2^53 are rounded. */
export function toFloat64(dtype: SafetensorsDType, bytes: Uint8Array<ArrayBuffer>): Float64Array<ArrayBuffer> {
  const { buffer } = bytes.byteOffset === 0 && bytes.byteLength === bytes.buffer.byteLength ? bytes : bytes.slice();
  switch (dtype) {
    case "F64":
      return new Float64Array(buffer);
    case "F32":
      return Float64Array.from(new Float32Array(buffer));
    case "F16":
      return Float64Array.from(new Float16Array(buffer));
    case "BF16":
      return Float64Array.from(widenBfloat16(new Uint16Array(buffer)));
    case "I64":
      return Float64Array.from(new BigInt64Array(buffer), Number);
    case "U64":
      return Float64Array.from(new BigUint64Array(buffer), Number);
    case "I32":
      return Float64Array.from(new Int32Array(buffer));
    case "U32":
      return Float64Array.from(new Uint32Array(buffer));
    case "I16":
      return Float64Array.from(new Int16Array(buffer));
    case "U16":
      return Float64Array.from(new Uint16Array(buffer));
    case "I8":
      return Float64Array.from(new Int8Array(buffer));
    default:
      return Float64Array.from(new Uint8Array(buffer));
  }
}

/** Any elements as 32-bit floats; halves widen exactly, doubles and large integers are rounded. */
export function toFloat32(dtype: SafetensorsDType, bytes: Uint8Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  const whole = bytes.byteOffset === 0 && bytes.byteLength === bytes.buffer.byteLength ? bytes : bytes.slice();
  switch (dtype) {
    case "F32":
      return new Float32Array(whole.buffer);
    case "F16":
      return Float32Array.from(new Float16Array(whole.buffer));
    case "BF16":
      return widenBfloat16(new Uint16Array(whole.buffer));
    default:
      return Float32Array.from(toFloat64(dtype, whole));
  }
}

/** A bfloat16 is the upper half of a float32. */
function widenBfloat16(halves: Uint16Array): Float32Array<ArrayBuffer> {
  return new Float32Array(Uint32Array.from(halves, (half) => half << 16).buffer);
}

/**
 * Elements of a floating-point tensor as 32-bit floats.
 *
 * @throws {TypeError} if it holds integers
 */
export async function readFloat32(file: TensorFile, info: TensorInfo): Promise<Float32Array<ArrayBuffer>> {
  if (!isFloat(info.dtype)) {
    throw new TypeError(`${file.name}: tensor "${info.name}" is ${info.dtype}, not floating point`);
  }
  return toFloat32(info.dtype, await file.read(info));
}
