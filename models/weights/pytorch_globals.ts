// The names of PyTorch that a checkpoint may refer to: tensors, parameters, storages and element types.

import { type PickleGlobal, PickleTuple } from "./pickle.ts";
import { describeValue } from "./pickle_text.ts";
import { plainGlobals } from "./plain_globals.ts";
import { type PytorchStorage, PytorchTensor, rebuildTensor } from "./pytorch_tensor.ts";
import type { SafetensorsDType } from "./safetensors.ts";

/** What a storage's name in a pickle stands for. */
export class StorageType {
  /** @param dtype undefined for raw bytes */
  constructor(readonly dtype: SafetensorsDType | undefined) {}
}

/** What a name such as `torch.float32` stands for. */
export class ElementType {
  constructor(readonly dtype: SafetensorsDType) {}
}

const STORAGES: Readonly<Record<string, SafetensorsDType>> = {
  FloatStorage: "F32",
  DoubleStorage: "F64",
  HalfStorage: "F16",
  BFloat16Storage: "BF16",
  LongStorage: "I64",
  IntStorage: "I32",
  ShortStorage: "I16",
  CharStorage: "I8",
  ByteStorage: "U8",
  BoolStorage: "BOOL",
};

const ELEMENTS: Readonly<Record<string, SafetensorsDType>> = {
  float32: "F32",
  float: "F32",
  float64: "F64",
  double: "F64",
  float16: "F16",
  half: "F16",
  bfloat16: "BF16",
  int64: "I64",
  long: "I64",
  int32: "I32",
  int16: "I16",
  int8: "I8",
  uint8: "U8",
  uint16: "U16",
  uint32: "U32",
  uint64: "U64",
  bool: "BOOL",
};

/** Classes that a rebuilding function may be told to build; each is just a tensor here. */
const TENSOR_CLASSES = ["torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"];

/** A storage as the persistent id of a pickle gives it. */
export class StorageReference {
  constructor(readonly storage: PytorchStorage) {}
}

const REBUILD: Readonly<Record<string, (args: readonly unknown[]) => unknown>> = {
  "torch._utils._rebuild_tensor": (args) => rebuild(args, 4, 4),
  "torch._utils._rebuild_tensor_v2": (args) => rebuild(args, 6, 7),
  "torch._utils._rebuild_tensor_v3": (args) => rebuild(args, 7, 8, args[6]),
  "torch._utils._rebuild_parameter": (args) => wrapped(args, 3),
  "torch._utils._rebuild_parameter_with_state": (args) => wrapped(args, 4),
};

function rebuild(args: readonly unknown[], least: number, most: number, element?: unknown): PytorchTensor {
  const [reference, offset, size, strides] = args;
  if (args.length < least || args.length > most || !(reference instanceof StorageReference)) {
    throw new SyntaxError("a tensor without its storage");
  }
  const stated = (element as PickleGlobal | null | undefined)?.value;
  const dtype = stated instanceof ElementType ? stated.dtype : reference.storage.dtype;
  if (!dtype) throw new SyntaxError("a tensor whose elements have no type");
  return rebuildTensor(reference.storage, dtype, offset, size, strides);
}

function wrapped(args: readonly unknown[], count: number): PytorchTensor {
  const [data] = args;
  if (args.length !== count || !(data instanceof PytorchTensor)) {
    throw new SyntaxError("a parameter without its tensor");
  }
  return data;
}

/** Tensors with attributes of their own: (function, class, arguments, attributes). */
function rebuildFromType(args: readonly unknown[]): unknown {
  const [callee, type, given] = args;
  const name = (callee as PickleGlobal | null)?.name;
  const known = typeof name === "string" && Object.hasOwn(REBUILD, name) ? REBUILD[name] : undefined;
  const isClass = TENSOR_CLASSES.includes((type as PickleGlobal | null)?.name ?? "");
  if (args.length !== 4 || !known || !isClass || !(given instanceof PickleTuple)) {
    throw new SyntaxError("_rebuild_from_type_v2 of what is no tensor");
  }
  return known(given.items);
}

/** All names a PyTorch file may use, for one file. */
export function pytorchGlobals(): Map<string, PickleGlobal> {
  const list: PickleGlobal[] = [
    ...plainGlobals(),
    ...Object.entries(REBUILD).map(([name, call]) => ({ name, call })),
    { name: "torch._tensor._rebuild_from_type_v2", call: rebuildFromType },
    {
      name: "torch.Size",
      call: (args) => new PickleTuple(args[0] instanceof PickleTuple ? args[0].items : listOf(args)),
    },
    { name: "torch.device", call: (args) => args.map(describeValue).join(":") },
    { name: "torch.storage.UntypedStorage", value: new StorageType(undefined) },
    { name: "torch.UntypedStorage", value: new StorageType(undefined) },
    ...TENSOR_CLASSES.map((name) => ({ name })),
    ...Object.entries(STORAGES).flatMap(([name, dtype]) =>
      ["torch", "torch.cuda", "torch.storage"].map((module) => ({
        name: `${module}.${name}`,
        value: new StorageType(dtype),
      }))
    ),
    ...Object.entries(ELEMENTS).map(([name, dtype]) => ({ name: `torch.${name}`, value: new ElementType(dtype) })),
  ];
  return new Map(list.map((global) => [global.name, global]));
}

function listOf(args: readonly unknown[]): readonly unknown[] {
  if (args.length !== 1 || !Array.isArray(args[0])) throw new SyntaxError("torch.Size of what is no tuple");
  return args[0];
}
