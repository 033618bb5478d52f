// The names of Python and numpy that stand for plain data in a pickle, and what they become.

import { type Buildable, type PickleGlobal, PickleObject, PickleTuple } from "./pickle.ts";
import { describeValue } from "./pickle_text.ts";

/** A numpy scalar, which learning rates computed from arrays are. */
export class NumpyScalar {
  constructor(readonly dtype: string, readonly value: number | bigint | boolean) {}
}

/** numpy's names of element types, by their codes. */
const NUMPY_TYPES: Readonly<Record<string, string>> = {
  b1: "bool",
  i1: "int8",
  i2: "int16",
  i4: "int32",
  i8: "int64",
  u1: "uint8",
  u2: "uint16",
  u4: "uint32",
  u8: "uint64",
  f2: "float16",
  f4: "float32",
  f8: "float64",
};

class NumpyType implements Buildable {
  #order = "<";
  constructor(readonly code: string) {}

  buildFromPickle(state: unknown): void {
    const order = state instanceof PickleTuple ? state.items[1] : undefined;
    if (typeof order !== "string" || !"<>|=".includes(order)) {
      throw new SyntaxError("the state of a numpy.dtype is odd");
    }
    this.#order = order;
  }

  scalar(bytes: Uint8Array): NumpyScalar {
    if (bytes.length !== Number(this.code.slice(1))) {
      throw new SyntaxError(`a numpy scalar of type ${this.code} in ${bytes.length} bytes`);
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const little = this.#order !== ">";
    return new NumpyScalar(NUMPY_TYPES[this.code], readNumber(view, this.code, little));
  }
}

function readNumber(view: DataView, code: string, little: boolean): number | bigint | boolean {
  const safe = (value: bigint) => Number.isSafeInteger(Number(value)) ? Number(value) : value;
  switch (code) {
    case "b1":
      return view.getUint8(0) !== 0;
    case "i1":
      return view.getInt8(0);
    case "u1":
      return view.getUint8(0);
    case "i2":
      return view.getInt16(0, little);
    case "u2":
      return view.getUint16(0, little);
    case "i4":
      return view.getInt32(0, little);
    case "u4":
      return view.getUint32(0, little);
    case "i8":
      return safe(view.getBigInt64(0, little));
    case "u8":
      return safe(view.getBigUint64(0, little));
    case "f2":
      return view.getFloat16(0, little);
    case "f4":
      return view.getFloat32(0, little);
    default:
      return view.getFloat64(0, little);
  }
}

// A pickle may call the same function on the same value a million times in a few bytes each, so nothing is copied twice:
// dicts are passed on as they are, other results are remembered by what they were made of.

function dictMaker() {
  const made = new WeakMap<object, Map<unknown, unknown>>();
  return (args: readonly unknown[]): Map<unknown, unknown> => {
    if (args.length === 0) return new Map();
    const [given] = args;
    if (args.length === 1 && given instanceof Map) return given;
    if (args.length !== 1 || !Array.isArray(given)) throw new SyntaxError("a dict of what is no list of pairs");
    const before = made.get(given);
    if (before) return before;
    const map = new Map(given.map((pair): [unknown, unknown] => {
      const items = pair instanceof PickleTuple ? pair.items : pair;
      if (!Array.isArray(items) || items.length !== 2) throw new SyntaxError("a dict of what is no list of pairs");
      return [items[0], items[1]];
    }));
    made.set(given, map);
    return map;
  };
}

function setMaker() {
  const made = new WeakMap<object, Set<unknown>>();
  return (args: readonly unknown[]): Set<unknown> => {
    if (args.length === 0) return new Set();
    const [given] = args;
    if (args.length !== 1 || !Array.isArray(given)) throw new SyntaxError("a set of what is no list");
    const set = made.get(given) ?? new Set(given);
    made.set(given, set);
    return set;
  };
}

/** Protocol 2 has no bytes: it writes them as Latin-1 text and calls `_codecs.encode`. */
function encoder() {
  const made = new Map<string, Uint8Array>();
  return (text: unknown, encoding: unknown): Uint8Array => {
    if (typeof text !== "string" || (encoding !== "latin1" && encoding !== "latin-1")) {
      throw new SyntaxError("_codecs.encode of what is no Latin-1 text");
    }
    let bytes = made.get(text);
    if (!bytes) {
      bytes = new Uint8Array(text.length);
      for (let i = 0; i < text.length; i++) {
        const code = text.charCodeAt(i);
        if (code > 255) throw new SyntaxError("_codecs.encode of what is no Latin-1 text");
        bytes[i] = code;
      }
      made.set(text, bytes);
    }
    return bytes;
  };
}

function numpyType(args: readonly unknown[]): NumpyType {
  const [code] = args;
  const plain = typeof code === "string" ? code.replace(/^[<|=]/, "") : "";
  if (!Object.hasOwn(NUMPY_TYPES, plain)) throw new SyntaxError(`numpy.dtype ${describeValue(code)} is no number`);
  return new NumpyType(plain);
}

function namespace(args: readonly unknown[]): PickleObject {
  if (args.length > 0) throw new SyntaxError("argparse.Namespace with arguments");
  return new PickleObject("argparse.Namespace");
}

/** The list, for one file. */
export function plainGlobals(): PickleGlobal[] {
  const dict = dictMaker(), set = setMaker(), encode = encoder();
  const numpyScalar = (args: readonly unknown[]): NumpyScalar => {
    const [type, bytes] = args;
    if (!(type instanceof NumpyType)) throw new SyntaxError("a numpy scalar without its dtype");
    const raw = typeof bytes === "string" ? encode(bytes, "latin1") : bytes; // Python 2 wrote a str
    if (!(raw instanceof Uint8Array)) throw new SyntaxError("a numpy scalar without its bytes");
    return type.scalar(raw);
  };
  return [
    { name: "collections.OrderedDict", call: dict },
    { name: "collections.Counter", call: dict },
    ...["builtins", "__builtin__"].flatMap((module): PickleGlobal[] => [
      { name: `${module}.dict`, call: dict },
      { name: `${module}.set`, call: set },
      { name: `${module}.frozenset`, call: set },
    ]),
    { name: "argparse.Namespace", call: namespace },
    { name: "_codecs.encode", call: ([text, encoding]) => encode(text, encoding) },
    { name: "numpy.dtype", call: numpyType },
    { name: "numpy.core.multiarray.scalar", call: numpyScalar },
    { name: "numpy._core.multiarray.scalar", call: numpyScalar },
  ];
}
