// NumPy's .npy format, version 1.0: a header that is a Python literal, then raw elements.

const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59]; // \x93NUMPY
/** Elements begin at a multiple of this, as the format recommends. */
const ALIGNMENT = 64;

/**
 * A .npy file of 32-bit floats or integers, row-major.
 *
 * @throws {RangeError} if the shape holds another number of elements
 */
export function encodeNpy(data: Float32Array | Int32Array, shape: readonly number[]): Uint8Array<ArrayBuffer> {
  if (shape.reduce((a, b) => a * b, 1) !== data.length) {
    throw new RangeError(`npy: ${data.length} elements for shape [${shape}]`);
  }
  const type = data instanceof Float32Array ? "<f4" : "<i4";
  const extents = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const literal = `{'descr': '${type}', 'fortran_order': False, 'shape': (${extents}), }`;
  const head = MAGIC.length + 4;
  const length = Math.ceil((head + literal.length + 1) / ALIGNMENT) * ALIGNMENT;
  const bytes = new Uint8Array(length + data.byteLength);
  bytes.set(MAGIC);
  bytes.set([1, 0], MAGIC.length);
  new DataView(bytes.buffer).setUint16(MAGIC.length + 2, length - head, true);
  bytes.set(new TextEncoder().encode(literal.padEnd(length - head - 1) + "\n"), head);
  bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), length);
  return bytes;
}
