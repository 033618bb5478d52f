// PyTorch's .pth, .pt and .bin files, in the zip layout and the older stream of pickles, without running anything in them.

import { PickleObject, PickleTruncated, PickleTuple, type PickleWorld, unpickle } from "./pickle.ts";
import { describeValue } from "./pickle_text.ts";
import { pytorchGlobals, StorageReference, StorageType } from "./pytorch_globals.ts";
import { type PytorchStorage, PytorchTensor, readPytorchTensor } from "./pytorch_tensor.ts";
import type { ByteSource } from "./safetensors.ts";
import { ELEMENT_BYTES, elementCount, type TensorFile, type TensorInfo } from "./tensor_file.ts";
import { memberStart, readMember, readZipDirectory } from "./zip_archive.ts";

/** The pickle of a checkpoint: a few kilobytes for each hundred tensors. */
const MAX_PICKLE = 64 * 2 ** 20;

/**
 * Opens a PyTorch file. Tensors are named by their dotted paths, e.g. `teacher.backbone.cls_token` or
 * `optimizer.state.0.exp_avg`; `object` is all of it, dicts as Maps.
 *
 * @throws {SyntaxError} if it is malformed or truncated, or a tensor reaches outside its storage
 * @throws {TypeError} if it asks for anything but tensors and plain data, naming it
 */
export async function openPytorch(source: ByteSource): Promise<TensorFile> {
  const head = await source.read(0, Math.min(4, source.size));
  const zip = head.length === 4 && head[0] === 0x50 && head[1] === 0x4b;
  const object = zip ? await readZipLayout(source) : await readStreamLayout(source);
  const tensors = tensorsByPath(source, object);
  return {
    name: source.name,
    format: zip ? "PyTorch (zip)" : "PyTorch (stream of pickles, before 1.6)",
    tensors,
    metadata: {},
    object,
    read: (info) => readPytorchTensor(source, (info as PytorchInfo).tensor),
    close: () => source.close?.(),
  };
}

interface PytorchInfo extends TensorInfo {
  readonly tensor: PytorchTensor;
}

async function readZipLayout(source: ByteSource): Promise<unknown> {
  const members = await readZipDirectory(source);
  const pickles = [...members.keys()].filter((path) => path === "data.pkl" || path.endsWith("/data.pkl"));
  if (pickles.length !== 1) {
    throw new SyntaxError(`${source.name}: a zip archive with ${pickles.length} data.pkl, one is PyTorch's`);
  }
  const folder = pickles[0].slice(0, -"data.pkl".length);
  if (members.has(`${folder}constants.pkl`)) {
    throw new TypeError(`${source.name}: is a TorchScript program: save its state_dict() with torch.save instead`);
  }
  const order = members.get(`${folder}byteorder`);
  if (order && new TextDecoder().decode(await readMember(source, order, 16)) !== "little") {
    throw new TypeError(`${source.name}: is of a big-endian machine, which is not supported`);
  }
  const persistent = (id: unknown) => {
    const { key, dtype, length } = storageId(id, 5);
    const member = members.get(`${folder}data/${key}`);
    if (!member) throw new SyntaxError(`storage "${key}" is not in the archive`);
    const bytes = length * (dtype ? ELEMENT_BYTES[dtype] : 1);
    if (member.deflated) throw new SyntaxError(`storage "${key}" is compressed, which PyTorch never does`);
    if (bytes > member.bytes) throw new SyntaxError(`storage "${key}" should have ${bytes} bytes, has ${member.bytes}`);
    return new StorageReference({ key, dtype, bytes, start: () => memberStart(source, member) });
  };
  const bytes = await readMember(source, members.get(pickles[0])!, MAX_PICKLE);
  return guarded(source, () => unpickle(bytes, { globals: pytorchGlobals(), persistent })).value;
}

// The older layout is a sequence: magic number, protocol, system, the object, the keys of its storages, the storages.
const STREAM_MAGIC = 0x1950a86a20f9469cfc6cn;
const STREAM_PROTOCOL = 1001;

interface StreamStorage extends PytorchStorage {
  readonly elementBytes: number;
  place?: number;
}

async function readStreamLayout(source: ByteSource): Promise<unknown> {
  const fail = (message: string): never => {
    throw new SyntaxError(`${source.name}: ${message}`);
  };
  const storages = new Map<string, StreamStorage>();
  const pickles = new PickleStream(source, {
    globals: pytorchGlobals(),
    persistent: (id) => new StorageReference(streamStorage(id, storages)),
  });
  const plain = { globals: new Map() };
  const magic = await pickles.next(plain);
  if (magic !== STREAM_MAGIC) fail("is not a PyTorch file: it begins with neither a zip archive nor PyTorch's number");
  const protocol = await pickles.next(plain);
  if (protocol !== STREAM_PROTOCOL) fail(`is of PyTorch's stream protocol ${protocol}, ${STREAM_PROTOCOL} is known`);
  const system = await pickles.next(plain);
  if (!(system instanceof Map) || system.get("little_endian") !== true) fail("is not of a little-endian machine");
  const object = await pickles.next();
  const keys = await pickles.next(plain);
  if (!Array.isArray(keys)) return fail("has no list of storages behind its object");

  let at = pickles.at;
  for (const key of keys) {
    const storage = typeof key === "string" ? storages.get(key) : undefined;
    if (!storage || storage.place !== undefined) {
      return fail(`lists a storage ${describeValue(key)} of no tensor`);
    }
    if (at + 8 + storage.bytes > source.size) {
      fail(
        `storage "${storage.key}" of ${storage.bytes} bytes should end at ${
          at + 8 + storage.bytes
        }, the file has ${source.size}: it is truncated`,
      );
    }
    const count = new DataView((await source.read(at, at + 8)).buffer).getBigInt64(0, true);
    if (count * BigInt(storage.elementBytes) !== BigInt(storage.bytes)) {
      fail(
        `storage "${storage.key}" holds ${count} elements, its tensors expect ${storage.bytes / storage.elementBytes}`,
      );
    }
    storage.place = at + 8;
    at += 8 + storage.bytes;
  }
  for (const storage of storages.values()) {
    if (storage.place === undefined) fail(`storage "${storage.key}" is not in the file`);
  }
  return object;
}

/** A storage, or a view into one: views become storages of their own at the root's place. */
function streamStorage(id: unknown, storages: Map<string, StreamStorage>): PytorchStorage {
  const { key, dtype, length, view } = storageId(id, 6);
  const elementBytes = dtype ? ELEMENT_BYTES[dtype] : 1; // an untyped storage counts its bytes
  let root = storages.get(key);
  if (root && (root.dtype !== dtype || root.bytes !== length * elementBytes)) {
    throw new SyntaxError(`storage "${key}" is described in two ways`);
  }
  if (!root) {
    const made: StreamStorage = {
      key,
      dtype,
      elementBytes,
      bytes: length * elementBytes,
      start: () => Promise.resolve(made.place!),
    };
    storages.set(key, root = made);
  }
  if (view === null || view === undefined) return root;
  const items = view instanceof PickleTuple ? view.items : [];
  const [viewKey, offset, count] = items as [unknown, number, number];
  const natural = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;
  if (items.length !== 3 || !natural(offset) || !natural(count) || offset + count > length) {
    throw new SyntaxError(`a view of storage "${key}" that reaches outside of it`);
  }
  const whole = root;
  return {
    key: `${key}/${describeValue(viewKey)}`,
    dtype,
    bytes: count * elementBytes,
    start: () => Promise.resolve(whole.place! + offset * elementBytes),
  };
}

/** Successive pickles of a file whose lengths nobody knows: the bytes at hand grow until one is complete. */
class PickleStream {
  at = 0;
  #bytes = new Uint8Array(0);
  constructor(readonly source: ByteSource, readonly world: PickleWorld) {}

  async next(world: PickleWorld = this.world): Promise<unknown> {
    for (;;) {
      try {
        const { value, end } = guarded(this.source, () => unpickle(this.#bytes, world, this.at));
        this.at = end;
        return value;
      } catch (error) {
        const { size } = this.source;
        const atHand = this.#bytes.length;
        if (!(error instanceof PickleTruncated) || atHand === Math.min(size, MAX_PICKLE)) throw error;
        // Doubling costs at most twice the work of knowing the length.
        this.#bytes = await this.source.read(0, Math.min(size, MAX_PICKLE, Math.max(2 * atHand, 2 ** 16)));
      }
    }
  }
}

/** ("storage", type, key, device, elements[, view]) */
function storageId(id: unknown, items: number) {
  const [kind, type, key, , length, view] = id instanceof PickleTuple ? id.items : [];
  if (kind !== "storage") {
    throw new TypeError(`a persistent id of kind ${describeValue(kind)}, only storages are read`);
  }
  const storageType = (type as { value?: unknown } | null)?.value;
  if (!(storageType instanceof StorageType) || typeof key !== "string" || (id as PickleTuple).items.length > items) {
    throw new SyntaxError("a storage that is not described as PyTorch does");
  }
  if (!Number.isSafeInteger(length) || (length as number) < 0) {
    throw new SyntaxError(`storage "${key}" has ${describeValue(length)} elements`);
  }
  return { key, dtype: storageType.dtype, length: length as number, view };
}

/** Puts the name of the file before what a pickle is refused for. */
function guarded<T>(source: ByteSource, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof PickleTruncated) throw new PickleTruncated(`${source.name}: ${error.message}`);
    if (error instanceof TypeError) throw new TypeError(`${source.name}: ${error.message}`);
    if (error instanceof SyntaxError) throw new SyntaxError(`${source.name}: ${error.message}`);
    throw error;
  }
}

// A few bytes of pickle can describe a structure that is exponentially large when walked: every value may be shared.
const MAX_VALUES = 4_000_000;
const MAX_DEPTH = 64;
const MAX_PATH = 1024;
const MAX_PATHS_LENGTH = 2 ** 26;
/** Bytes that all tensors may take together, beyond a multiple of the file: tied weights share, but not without end. */
const SHARED = { times: 16, plus: 2 ** 28 };

function tensorsByPath(source: ByteSource, object: unknown): Map<string, PytorchInfo> {
  const fail = (message: string): never => {
    throw new SyntaxError(`${source.name}: ${message}`);
  };
  const tensors = new Map<string, PytorchInfo>();
  let values = 0, bytes = 0, letters = 0;
  const add = (path: string, tensor: PytorchTensor) => {
    if (tensors.has(path)) fail(`two tensors lie under "${path}"`);
    bytes += elementCount(tensor.shape) * ELEMENT_BYTES[tensor.dtype];
    letters += path.length;
    if (bytes > SHARED.times * source.size + SHARED.plus || letters > MAX_PATHS_LENGTH) {
      fail("its tensors share their storages so often that they cannot be meant");
    }
    tensors.set(path, { name: path, dtype: tensor.dtype, shape: tensor.shape, tensor });
  };
  const walk = (value: unknown, path: string, depth: number): void => {
    if (++values > MAX_VALUES || depth > MAX_DEPTH) fail("its object is nested too deeply, or holds itself");
    if (value instanceof PytorchTensor) return add(path, value);
    const below = (key: unknown, child: unknown) => {
      if (child === null || typeof child !== "object") return;
      const name = path === "" ? keyText(key) : `${path}.${keyText(key)}`;
      if (name.length > MAX_PATH) fail(`the path "${name.slice(0, 80)}…" is too long`);
      walk(child, name, depth + 1);
    };
    if (value instanceof Map) { for (const [key, child] of value) below(key, child); }
    else if (value instanceof PickleObject) { for (const [key, child] of value.fields) below(key, child); }
    else if (value instanceof PickleTuple) value.items.forEach((child, i) => below(i, child));
    else if (Array.isArray(value)) value.forEach((child, i) => below(i, child));
  };
  if (object instanceof PytorchTensor) add("tensor", object);
  else walk(object, "", 0);
  return tensors;
}

function keyText(key: unknown): string {
  return typeof key === "object" ? "?" : String(key);
}
