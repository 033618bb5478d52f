// numpy's .npy arrays and .npz archives: features and tensors in and out.

import { ELEMENT_BYTES, elementCount, type TensorFile, type TensorInfo } from "./tensor_file.ts";
import { type PytorchStorage, PytorchTensor, readPytorchTensor } from "./pytorch_tensor.ts";
import { type ByteSource, bytesSource, type SafetensorsDType, type TensorToWrite } from "./safetensors.ts";
import { type WriteBytes, writeFileAtomically } from "./atomic_file.ts";
import { memberStart, readMember, readZipDirectory } from "./zip_archive.ts";
import { streamZip } from "./zip_write.ts";

const DTYPES: Readonly<Record<string, SafetensorsDType>> = {
  "<f8": "F64",
  "<f4": "F32",
  "<f2": "F16",
  "<i8": "I64",
  "<i4": "I32",
  "<i2": "I16",
  "|i1": "I8",
  "|u1": "U8",
  "|b1": "BOOL",
  "<u2": "U16",
  "<u4": "U32",
  "<u8": "U64",
};
const CODES = new Map(Object.entries(DTYPES).map(([code, dtype]) => [dtype, code]));

const MAX_HEADER = 2 ** 16;
/** Unpacking needs memory for whole arrays, so all of an archive together cannot ask for any amount. */
const MAX_COMPRESSED = 2 ** 30;

interface NpyInfo extends TensorInfo {
  readonly source: ByteSource;
  readonly tensor: PytorchTensor;
}

/**
 * Opens one array, named `array`.
 *
 * @throws {SyntaxError} if it is malformed or truncated
 * @throws {TypeError} if its elements are no little-endian numbers
 */
export async function openNpy(source: ByteSource): Promise<TensorFile> {
  const info = await readHeader(source, 0, source.size, "array");
  return tensorFile(source, "npy", [info]);
}

/** Opens an archive of arrays, named as in it without `.npy`. Throws like {@linkcode openNpy}. */
export async function openNpz(source: ByteSource): Promise<TensorFile> {
  const infos: NpyInfo[] = [];
  let left = MAX_COMPRESSED;
  for (const member of (await readZipDirectory(source)).values()) {
    if (!member.path.endsWith(".npy")) throw new SyntaxError(`${source.name}: "${member.path}" is no array`);
    const name = member.path.slice(0, -".npy".length);
    if (member.deflated) {
      const bytes = await readMember(source, member, left);
      left -= bytes.length;
      infos.push(await readHeader(bytesSource(bytes, `${source.name}: ${name}`), 0, bytes.length, name));
    } else {
      const start = await memberStart(source, member);
      infos.push(await readHeader(source, start, start + member.bytes, name));
    }
  }
  return tensorFile(source, "npz", infos);
}

function tensorFile(source: ByteSource, format: string, infos: readonly NpyInfo[]): TensorFile {
  return {
    name: source.name,
    format: `numpy (${format})`,
    tensors: new Map(infos.map((info) => [info.name, info])),
    metadata: {},
    read: (info) => readPytorchTensor((info as NpyInfo).source, (info as NpyInfo).tensor),
    close: () => source.close?.(),
  };
}

async function readHeader(source: ByteSource, start: number, end: number, name: string): Promise<NpyInfo> {
  const fail = (message: string) => new SyntaxError(`${source.name}: array "${name}": ${message}`);
  if (end - start < 12) throw fail("is too short");
  const head = await source.read(start, start + 12);
  if (String.fromCharCode(...head.subarray(0, 6)) !== "\x93NUMPY") throw fail("is not numpy's format");
  const [major] = head.subarray(6);
  if (major < 1 || major > 3) throw fail(`is of version ${major}, 1 to 3 are known`);
  const view = new DataView(head.buffer, head.byteOffset);
  const length = major === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  const first = start + (major === 1 ? 10 : 12);
  if (length > MAX_HEADER || first + length > end) throw fail("has a header that goes on behind its end");
  const text = new TextDecoder().decode(await source.read(first, first + length)).trim();
  const match =
    /^\{\s*'descr':\s*'([^']{1,20})',\s*'fortran_order':\s*(True|False),\s*'shape':\s*\(([\d,\s]*)\),?\s*\}$/
      .exec(text);
  if (!match) throw fail(`has a header that is no description of an array of numbers: ${text.slice(0, 80)}`);
  const [, code, fortran, extents] = match;
  const dtype = Object.hasOwn(DTYPES, code) ? DTYPES[code] : undefined;
  if (!dtype) {
    throw new TypeError(`${source.name}: array "${name}" has elements ${code}: known are ${[...CODES.values()]}`);
  }
  const shape = extents.split(",").map((text) => text.trim()).filter((text) => text !== "").map(Number);
  if (!shape.every(Number.isSafeInteger)) throw fail(`has shape (${extents.slice(0, 80)})`);
  const bytes = end - first - length;
  if (elementCount(shape) * ELEMENT_BYTES[dtype] !== bytes) {
    throw fail(
      `is ${dtype} [${shape}], which takes ${elementCount(shape) * ELEMENT_BYTES[dtype]} bytes, but has ${bytes}`,
    );
  }
  const strides = new Array<number>(shape.length);
  let step = 1;
  for (let i = 0; i < shape.length; i++) {
    const d = fortran === "True" ? i : shape.length - 1 - i;
    strides[d] = step;
    step *= shape[d];
  }
  const storage: PytorchStorage = { key: name, dtype, bytes, start: () => Promise.resolve(first + length) };
  return { name, dtype, shape, source, tensor: new PytorchTensor(dtype, shape, strides, 0, storage) };
}

/** Bytes of the header that describes an array. */
function npyHeader({ name, dtype, shape }: TensorToWrite): Uint8Array {
  const code = CODES.get(dtype);
  if (!code) throw new TypeError(`"${name}" is ${dtype}, for which numpy has no type: write it as float32`);
  const extents = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const text = `{'descr': '${code}', 'fortran_order': False, 'shape': (${extents}), }`;
  const padded = Math.ceil((10 + text.length + 1) / 64) * 64 - 10; // elements begin at a multiple of 64
  const header = new Uint8Array(10 + padded).fill(0x20);
  header.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, padded & 255, padded >> 8]);
  header.set(new TextEncoder().encode(text), 10);
  header[header.length - 1] = 0x0a;
  return header;
}

/** Writes one array atomically. Throws {TypeError} for elements numpy does not have. */
export async function writeNpy(path: string, tensor: TensorToWrite): Promise<void> {
  const header = npyHeader(tensor);
  await writeFileAtomically(path, async (write: WriteBytes) => {
    await write(header);
    await write(await tensor.bytes());
  });
}

/** Writes arrays as an uncompressed .npz, atomically. Throws like {@linkcode writeNpy}. */
export async function writeNpz(path: string, tensors: readonly TensorToWrite[]): Promise<void> {
  const members = tensors.map((tensor) => {
    const header = npyHeader(tensor);
    const bytes = header.length + elementCount(tensor.shape) * ELEMENT_BYTES[tensor.dtype];
    return { path: `${tensor.name}.npy`, bytes, content: async () => [header, await tensor.bytes()] };
  });
  await writeFileAtomically(path, (write) => streamZip(write, members));
}
