// The safetensors format: u64 header length, JSON header, raw little-endian data; read by ranges, written as a stream.

import { type WriteBytes, writeFileAtomically } from "./atomic_file.ts";

/** Element types this reader and writer know. */
export type SafetensorsDType =
  | "F64"
  | "F32"
  | "F16"
  | "BF16"
  | "I64"
  | "I32"
  | "I16"
  | "I8"
  | "U8"
  | "BOOL"
  | "U32"
  | "U64"
  | "U16";

/** Bytes of an element. */
export const ELEMENT_BYTES: Readonly<Record<SafetensorsDType, number>> = {
  F64: 8,
  I64: 8,
  U64: 8,
  F32: 4,
  I32: 4,
  U32: 4,
  F16: 2,
  BF16: 2,
  I16: 2,
  U16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
};

/** Where a tensor lies in a file, and what it is. */
export interface TensorRecord {
  /** Key in the file. */
  readonly name: string;
  /** Type of the elements. */
  readonly dtype: SafetensorsDType;
  /** Extents. */
  readonly shape: readonly number[];
  /** First byte, from the beginning of the file. */
  readonly start: number;
  /** Bytes of the data. */
  readonly byteLength: number;
}

/** Bytes that can be read by ranges: a file, a blob, a server. */
export interface ByteSource {
  /** For messages. */
  readonly name: string;
  /** Bytes of the file. */
  readonly size: number;
  /** Exactly the bytes `start … end`; rejects when it cannot. */
  read(start: number, end: number): Promise<Uint8Array<ArrayBuffer>>;
  /** Gives the file back. */
  close?(): void;
}

/** What the header of a file says. */
export interface SafetensorsHeader {
  /** By key, in file order. */
  readonly tensors: ReadonlyMap<string, TensorRecord>;
  /** Free text the writer left. */
  readonly metadata: Readonly<Record<string, string>>;
}

// The format's own limit. A header describes tensors in about 100 bytes each, so this is room for a million.
const MAX_HEADER = 100_000_000;

/** A file on disk as {@linkcode openFileSource} opens it; undefined if there is none. */
export async function openFileSourceIfAny(path: string): Promise<ByteSource | undefined> {
  try {
    return await openFileSource(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** A file on disk as a {@linkcode ByteSource}. Close it after use. */
export async function openFileSource(path: string): Promise<ByteSource> {
  const file = await Deno.open(path);
  const { size } = await file.stat();
  // One read at a time: seek and read are two steps, and readers may overlap.
  let turn: Promise<unknown> = Promise.resolve();
  const readRange = async (start: number, end: number) => {
    const bytes = new Uint8Array(end - start);
    await file.seek(start, Deno.SeekMode.Start);
    for (let done = 0; done < bytes.length;) {
      const read = await file.read(bytes.subarray(done));
      if (read === null) {
        throw new SyntaxError(`${path}: ends at byte ${start + done}, ${end} were expected: it is truncated`);
      }
      done += read;
    }
    return bytes;
  };
  return {
    name: path,
    size,
    read(start, end) {
      const result = turn.then(() => readRange(start, end));
      turn = result.catch(() => {});
      return result;
    },
    close: () => file.close(),
  };
}

/** Bytes in memory as a {@linkcode ByteSource}. */
export function bytesSource(bytes: Uint8Array, name = "safetensors"): ByteSource {
  return { name, size: bytes.length, read: (start, end) => Promise.resolve(bytes.slice(start, end)) };
}

/**
 * Reads and checks the header; no tensor is touched.
 *
 * @throws {SyntaxError} if the file is truncated, or its header is not what the format allows, naming what and where
 */
export async function readSafetensorsHeader(source: ByteSource): Promise<SafetensorsHeader> {
  const fail = (message: string): never => {
    throw new SyntaxError(`${source.name}: ${message}`);
  };
  if (source.size < 8) {
    fail(`${source.size} bytes are too few for a safetensors file: it is truncated or another format`);
  }
  const first = await source.read(0, 8);
  const declared = new DataView(first.buffer, first.byteOffset).getBigUint64(0, true);
  if (declared > BigInt(MAX_HEADER)) {
    fail(`a header of ${declared} bytes is not believable: it is not a safetensors file`);
  }
  const dataStart = 8 + Number(declared);
  if (dataStart > source.size) {
    fail(`the header should end at byte ${dataStart}, the file has ${source.size}: it is truncated`);
  }
  const text = new TextDecoder("utf-8", { fatal: true });
  let json: unknown;
  let raw = "";
  try {
    raw = text.decode(await source.read(8, dataStart));
    json = JSON.parse(raw);
  } catch (error) {
    fail(`the header is not JSON in UTF-8 (${(error as Error).message.slice(0, 80)})`);
  }
  if (!isRecord(json)) return fail("the header is not a JSON object");
  const repeated = repeatedKey(raw);
  if (repeated !== undefined) fail(`tensor "${repeated}" is described twice`);

  const metadata = json.__metadata__ ?? {};
  if (!isRecord(metadata) || Object.values(metadata).some((value) => typeof value !== "string")) {
    fail("__metadata__ is not an object of strings");
  }
  const tensors = new Map<string, TensorRecord>();
  for (const [name, entry] of Object.entries(json)) {
    if (name !== "__metadata__") tensors.set(name, record(name, entry, dataStart, source.size, fail));
  }
  checkCoverage([...tensors.values()], dataStart, source.size, fail);
  return { tensors, metadata: metadata as Record<string, string> };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function record(name: string, entry: unknown, dataStart: number, fileSize: number, fail: (m: string) => never) {
  if (!isRecord(entry)) return fail(`tensor "${name}" is not described by an object`);
  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== "string" || !Object.hasOwn(ELEMENT_BYTES, dtype)) {
    return fail(
      `tensor "${name}" has dtype ${JSON.stringify(dtype)}: known are ${Object.keys(ELEMENT_BYTES).join(", ")}`,
    );
  }
  const whole = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
  if (!Array.isArray(shape) || !shape.every(whole)) return fail(`tensor "${name}" has shape ${JSON.stringify(shape)}`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(whole) || offsets[0] > offsets[1]) {
    return fail(`tensor "${name}" has data_offsets ${JSON.stringify(offsets)}`);
  }
  const byteLength = offsets[1] - offsets[0];
  const wanted = shape.reduce((product, extent) => product * extent, ELEMENT_BYTES[dtype as SafetensorsDType]);
  if (wanted !== byteLength) {
    return fail(`tensor "${name}" is ${dtype} [${shape}], which takes ${wanted} bytes, but has ${byteLength}`);
  }
  if (dataStart + offsets[1] > fileSize) {
    return fail(
      `tensor "${name}" should end at byte ${dataStart + offsets[1]}, the file has ${fileSize}: it is truncated`,
    );
  }
  return { name, dtype: dtype as SafetensorsDType, shape, start: dataStart + offsets[0], byteLength };
}

/** The format wants the data tiled without overlaps or holes: bytes nobody describes could hide anything. */
function checkCoverage(records: TensorRecord[], start: number, end: number, fail: (m: string) => never): void {
  records.sort((a, b) => a.start - b.start || a.byteLength - b.byteLength);
  let at = start;
  let previous = "the header";
  for (const { name, start, byteLength } of records) {
    if (start < at) fail(`tensor "${name}" overlaps "${previous}"`);
    if (start > at) fail(`${start - at} bytes before tensor "${name}" belong to none`);
    at = start + byteLength;
    previous = name;
  }
  if (at !== end) fail(`${end - at} bytes after "${previous}" belong to no tensor`);
}

/** JSON.parse silently lets the last of two equal keys win, so keys are looked for in the text itself. */
function repeatedKey(json: string): string | undefined {
  const seen: Set<string>[] = [];
  let depth = 0;
  for (let i = 0; i < json.length; i++) {
    const c = json[i];
    if (c === "{" || c === "[") seen[depth++] = new Set();
    else if (c === "}" || c === "]") depth--;
    else if (c === '"') {
      const from = i++;
      while (json[i] !== '"') i += json[i] === "\\" ? 2 : 1;
      let next = i + 1;
      while (json[next] === " " || json[next] === "\n" || json[next] === "\r" || json[next] === "\t") next++;
      if (json[next] !== ":") continue;
      const key = JSON.parse(json.slice(from, i + 1)) as string;
      if (seen[depth - 1].has(key)) return key;
      seen[depth - 1].add(key);
    }
  }
  return undefined;
}

/** Raw bytes of a tensor. */
export function readTensorBytes(source: ByteSource, record: TensorRecord): Promise<Uint8Array<ArrayBuffer>> {
  return source.read(record.start, record.start + record.byteLength);
}

/**
 * Elements of a floating-point tensor as 32-bit floats; halves widen exactly, doubles are rounded.
 *
 * @throws {TypeError} if it holds integers
 */
export async function readFloats(source: ByteSource, record: TensorRecord): Promise<Float32Array<ArrayBuffer>> {
  const bytes = await readTensorBytes(source, record);
  const { buffer } = bytes;
  switch (record.dtype) {
    case "F32":
      return new Float32Array(buffer);
    case "F64":
      return Float32Array.from(new Float64Array(buffer));
    case "F16":
      return Float32Array.from(new Float16Array(buffer));
    case "BF16":
      // A bfloat16 is the upper half of a float32.
      return new Float32Array(Uint32Array.from(new Uint16Array(buffer), (half) => half << 16).buffer);
    default:
      throw new TypeError(`${source.name}: tensor "${record.name}" is ${record.dtype}, not floating point`);
  }
}

/** A tensor to be written. */
export interface TensorToWrite {
  /** Key in the file. */
  readonly name: string;
  /** Type of the elements. */
  readonly dtype: SafetensorsDType;
  /** Extents. */
  readonly shape: readonly number[];
  /** Little-endian elements, asked for when their turn comes, so that one tensor at a time is in memory. */
  bytes(): Uint8Array | Promise<Uint8Array>;
}

/**
 * Bytes of the file that {@linkcode writeSafetensors} would write.
 *
 * @throws {TypeError} if two tensors have the same name
 */
export function safetensorsSize(tensors: readonly TensorToWrite[], metadata: Record<string, string> = {}): number {
  const { head, ordered } = layout(tensors, metadata);
  return ordered.reduce((sum, tensor) => sum + byteLengthOf(tensor), head.length);
}

/**
 * Writes a file atomically. Records are ordered by element size, so each is aligned to its own.
 *
 * @throws {RangeError} if a tensor gives another number of bytes than its shape takes
 */
export async function writeSafetensors(
  path: string,
  tensors: readonly TensorToWrite[],
  metadata: Record<string, string> = {},
): Promise<void> {
  await writeFileAtomically(path, (write) => streamSafetensors(write, tensors, metadata));
}

/** The same content into memory. */
export async function encodeSafetensors(
  tensors: readonly TensorToWrite[],
  metadata: Record<string, string> = {},
): Promise<Uint8Array<ArrayBuffer>> {
  const whole = new Uint8Array(safetensorsSize(tensors, metadata));
  let at = 0;
  await streamSafetensors(
    (bytes) => {
      whole.set(bytes, at);
      at += bytes.length;
      return Promise.resolve();
    },
    tensors,
    metadata,
  );
  return whole;
}

async function streamSafetensors(
  write: WriteBytes,
  tensors: readonly TensorToWrite[],
  metadata: Record<string, string>,
) {
  const { head, ordered } = layout(tensors, metadata);
  await write(head);
  for (const tensor of ordered) {
    const bytes = await tensor.bytes();
    if (bytes.length !== byteLengthOf(tensor)) {
      throw new RangeError(
        `tensor "${tensor.name}": ${bytes.length} bytes for ${tensor.dtype} [${tensor.shape}], which takes ${
          byteLengthOf(tensor)
        }`,
      );
    }
    await write(bytes);
  }
}

function byteLengthOf(tensor: TensorToWrite): number {
  return tensor.shape.reduce((product, extent) => product * extent, ELEMENT_BYTES[tensor.dtype]);
}

function layout(tensors: readonly TensorToWrite[], metadata: Record<string, string>) {
  const ordered = [...tensors].sort((a, b) => ELEMENT_BYTES[b.dtype] - ELEMENT_BYTES[a.dtype]); // stable: the given order otherwise
  const entries: [string, unknown][] = Object.keys(metadata).length > 0 ? [["__metadata__", metadata]] : [];
  const names = new Set(["__metadata__"]);
  let at = 0;
  for (const tensor of ordered) {
    if (names.has(tensor.name)) throw new TypeError(`tensor "${tensor.name}": the name is taken`);
    names.add(tensor.name);
    const end = at + byteLengthOf(tensor);
    entries.push([tensor.name, { dtype: tensor.dtype, shape: tensor.shape, data_offsets: [at, end] }]);
    at = end;
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(entries)));
  const padded = Math.ceil(json.length / 8) * 8; // so that the data begin at a multiple of 8
  const head = new Uint8Array(8 + padded).fill(0x20);
  new DataView(head.buffer).setBigUint64(0, BigInt(padded), true);
  head.set(json, 8);
  return { head, ordered };
}
