// Writes .pth files of nested dicts of tensors, which torch.load(weights_only=True) reads.

import { writeFileAtomically } from "./atomic_file.ts";
import type { SafetensorsDType, TensorToWrite } from "./safetensors.ts";
import { ELEMENT_BYTES, elementCount } from "./tensor_file.ts";
import { streamZip } from "./zip_write.ts";

/** A dict to be written: tensors by name, or further dicts. */
export type StateDict = ReadonlyMap<string, TensorToWrite | StateDict>;

const STORAGES: Readonly<Partial<Record<SafetensorsDType, string>>> = {
  F32: "FloatStorage",
  F64: "DoubleStorage",
  F16: "HalfStorage",
  BF16: "BFloat16Storage",
  I64: "LongStorage",
  I32: "IntStorage",
  I16: "ShortStorage",
  I8: "CharStorage",
  U8: "ByteStorage",
  BOOL: "BoolStorage",
};

/**
 * Writes a file in PyTorch's zip layout, atomically; one tensor at a time is in memory.
 *
 * @throws {TypeError} if a tensor is of a type PyTorch has no storage for
 */
export async function writePytorch(path: string, state: StateDict): Promise<void> {
  const pickle = new StatePickle();
  const bytes = pickle.finish(state);
  const text = (name: string, content: string) => {
    const encoded = new TextEncoder().encode(content);
    return { path: `archive/${name}`, bytes: encoded.length, content: () => Promise.resolve([encoded]) };
  };
  const members = [
    { path: "archive/data.pkl", bytes: bytes.length, content: () => Promise.resolve([bytes]) },
    text("byteorder", "little"),
    ...pickle.tensors.map((tensor, key) => ({
      path: `archive/data/${key}`,
      bytes: elementCount(tensor.shape) * ELEMENT_BYTES[tensor.dtype],
      content: async () => [await tensor.bytes()],
    })),
    text("version", "3\n"),
  ];
  await writeFileAtomically(path, (write) => streamZip(write, members));
}

/** A pickle of protocol 2, of dicts, strings and tensors. */
class StatePickle {
  /** In the order of their storages' keys. */
  readonly tensors: TensorToWrite[] = [];
  #bytes: number[] = [];

  finish(state: StateDict): Uint8Array<ArrayBuffer> {
    this.#put(0x80, 2);
    this.#dict(state);
    this.#op(".");
    return Uint8Array.from(this.#bytes);
  }

  #dict(state: StateDict): void {
    this.#op("}(");
    for (const [name, value] of state) {
      this.#text(name);
      if (value instanceof Map) this.#dict(value);
      else this.#tensor(value as TensorToWrite);
    }
    this.#op("u");
  }

  /** torch._utils._rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict()) */
  #tensor(tensor: TensorToWrite): void {
    const storage = STORAGES[tensor.dtype];
    if (!storage) throw new TypeError(`"${tensor.name}" is ${tensor.dtype}, for which PyTorch has no storage`);
    const key = this.tensors.push(tensor) - 1;
    this.#global("torch._utils", "_rebuild_tensor_v2");
    this.#op("((");
    this.#text("storage");
    this.#global("torch", storage);
    this.#text(String(key));
    this.#text("cpu");
    this.#int(elementCount(tensor.shape));
    this.#op("tQ");
    this.#int(0);
    const strides = tensor.shape.map((_, i) => elementCount(tensor.shape.slice(i + 1)));
    for (const numbers of [tensor.shape, strides]) {
      this.#op("(");
      for (const number of numbers) this.#int(number);
      this.#op("t");
    }
    this.#put(0x89);
    this.#global("collections", "OrderedDict");
    this.#op(")RtR");
  }

  #op(text: string): void {
    for (let i = 0; i < text.length; i++) this.#bytes.push(text.charCodeAt(i));
  }

  #put(...bytes: number[]): void {
    this.#bytes.push(...bytes);
  }

  #global(module: string, name: string): void {
    this.#op(`c${module}\n${name}\n`);
  }

  #text(text: string): void {
    const encoded = new TextEncoder().encode(text);
    this.#op("X");
    this.#u32(encoded.length);
    for (const byte of encoded) this.#bytes.push(byte);
  }

  #int(value: number): void {
    if (value < 2 ** 31) {
      this.#op("J");
      this.#u32(value);
    } else {
      this.#put(0x8a, 8); // LONG1 of eight bytes
      this.#u32(value % 2 ** 32);
      this.#u32(Math.floor(value / 2 ** 32));
    }
  }

  #u32(value: number): void {
    for (let shift = 0; shift < 32; shift += 8) this.#bytes.push(value >>> shift & 255);
  }
}
