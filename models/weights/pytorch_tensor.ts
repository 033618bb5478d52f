// A tensor of a PyTorch file: a strided view into a storage, checked against it, and gathered by ranges.

import { PickleTuple } from "./pickle.ts";
import { describeValue } from "./pickle_text.ts";
import type { ByteSource, SafetensorsDType } from "./safetensors.ts";
import { ELEMENT_BYTES, elementCount } from "./tensor_file.ts";

/** Bytes of a file that tensors view. */
export interface PytorchStorage {
  readonly key: string;
  /** Type of the elements; undefined for raw bytes, whose tensors say it themselves. */
  readonly dtype?: SafetensorsDType;
  /** Bytes it holds. */
  readonly bytes: number;
  /** First byte in the file. */
  start(): Promise<number>;
}

/** A view into a storage. */
export class PytorchTensor {
  constructor(
    readonly dtype: SafetensorsDType,
    readonly shape: readonly number[],
    /** Elements from one index to the next, for each dimension. */
    readonly strides: readonly number[],
    /** Elements before the first. */
    readonly offset: number,
    readonly storage: PytorchStorage,
  ) {}
}

/** PyTorch itself allows 64. */
const MAX_DIMENSIONS = 64;
/** Elements that a view may repeat beyond what its storage holds: enough for any expanded buffer, too few to fill a memory. */
const MAX_REPEATED = 2 ** 24;

/**
 * The tensor that a rebuilding function describes.
 *
 * @throws {SyntaxError} if it is no tensor, or reaches outside its storage
 */
export function rebuildTensor(
  storage: PytorchStorage,
  dtype: SafetensorsDType,
  offset: unknown,
  size: unknown,
  strides: unknown,
): PytorchTensor {
  const shape = naturals(size, "size"), steps = naturals(strides, "stride");
  const [first] = naturals(new PickleTuple([offset]), "storage offset");
  if (shape.length !== steps.length || shape.length > MAX_DIMENSIONS) {
    throw new SyntaxError(`a tensor of ${shape.length} dimensions with ${steps.length} strides`);
  }
  const held = Math.floor(storage.bytes / ELEMENT_BYTES[dtype]);
  const count = elementCount(shape);
  if (count > 0) {
    const last = shape.reduce((sum, extent, i) => sum + (extent - 1) * steps[i], first);
    if (last >= held) {
      throw new SyntaxError(
        `a tensor ${dtype} [${shape}] with strides [${steps}] from element ${first} reaches element ${last} of storage ` +
          `"${storage.key}", which holds ${held}`,
      );
    }
  }
  if (count > held && count > MAX_REPEATED) {
    throw new SyntaxError(`a tensor [${shape}] repeats the ${held} elements of storage "${storage.key}" too often`);
  }
  return new PytorchTensor(dtype, shape, steps, first, storage);
}

function naturals(value: unknown, what: string): number[] {
  const items = value instanceof PickleTuple ? value.items : value;
  if (!Array.isArray(items)) throw new SyntaxError(`the ${what} of a tensor is no tuple`);
  if (!items.every((item) => Number.isSafeInteger(item) && item >= 0)) {
    throw new SyntaxError(
      `the ${what} of a tensor is [${
        items.slice(0, MAX_DIMENSIONS).map(describeValue)
      }]: whole numbers from 0 are wanted`,
    );
  }
  return items as number[];
}

/** A part that is read at once may hold this much that is not wanted. */
const MAX_WASTE_BYTES = 2 ** 20;

/** Elements in row-major order, little-endian. Only the ranges it views are read. */
export async function readPytorchTensor(source: ByteSource, tensor: PytorchTensor): Promise<Uint8Array<ArrayBuffer>> {
  const { dtype, shape, strides, storage } = tensor;
  const size = ELEMENT_BYTES[dtype];
  const count = elementCount(shape);
  if (count === 0) return new Uint8Array(0);
  const base = await storage.start() + tensor.offset * size;
  if (isContiguous(shape, strides)) return await source.read(base, base + count * size);

  const result = new Uint8Array(count * size);
  /** The sub-block of dimensions `from …` that begins `start` elements behind the base goes to element `target`. */
  const gather = async (from: number, start: number, target: number): Promise<void> => {
    const inner = shape.slice(from), steps = strides.slice(from);
    const span = 1 + inner.reduce((sum, extent, i) => sum + (extent - 1) * steps[i], 0);
    const block = elementCount(inner);
    if (from === shape.length || span * size <= 2 * block * size + MAX_WASTE_BYTES) {
      const part = await source.read(base + start * size, base + (start + span) * size);
      copyStrided(part, inner, steps, result.subarray(target * size, (target + block) * size), size);
      return;
    }
    const below = block / shape[from];
    for (let i = 0; i < shape[from]; i++) await gather(from + 1, start + i * strides[from], target + i * below);
  };
  await gather(0, 0, 0);
  return result;
}

function isContiguous(shape: readonly number[], strides: readonly number[]): boolean {
  let expected = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== expected) return false;
    expected *= shape[i];
  }
  return true;
}

function copyStrided(
  from: Uint8Array,
  shape: readonly number[],
  strides: readonly number[],
  to: Uint8Array,
  size: number,
) {
  const index = new Array<number>(shape.length).fill(0);
  let at = 0;
  for (let element = 0; element < to.length; element += size) {
    for (let b = 0; b < size; b++) to[element + b] = from[at * size + b];
    for (let d = shape.length - 1; d >= 0; d--) {
      at += strides[d];
      if (++index[d] < shape[d]) break;
      at -= strides[d] * shape[d];
      index[d] = 0;
    }
  }
}
