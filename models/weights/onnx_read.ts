// The weights of an ONNX model: its initializers, read by ranges as any file of tensors.

import { ProtoReader } from "./protobuf.ts";
import type { ByteSource, SafetensorsDType } from "./safetensors.ts";
import { ELEMENT_BYTES, elementCount, type TensorFile, type TensorInfo } from "./tensor_file.ts";

/** Field numbers of onnx.proto that matter here. */
export const ONNX = {
  model: { irVersion: 1, producer: 2, producerVersion: 3, graph: 7, opset: 8, metadata: 14 },
  graph: { node: 1, name: 2, initializer: 5, doc: 10, input: 11, output: 12 },
  tensor: { dims: 1, dataType: 2, name: 8, raw: 9, location: 14 },
} as const;

const DTYPES: Readonly<Record<number, SafetensorsDType>> = {
  1: "F32",
  2: "U8",
  3: "I8",
  4: "U16",
  5: "I16",
  6: "I32",
  7: "I64",
  9: "BOOL",
  10: "F16",
  11: "F64",
  12: "U32",
  13: "U64",
  16: "BF16",
};

const MAX_DIMENSIONS = 64;
const MAX_NAME = 4096;

interface OnnxInfo extends TensorInfo {
  readonly start: number;
}

/**
 * Opens a model for its initializers. Those without raw data (small constants in typed fields, external files) are left out.
 *
 * @throws {SyntaxError} if it is malformed, or no model
 */
export async function openOnnx(source: ByteSource): Promise<TensorFile> {
  const reader = new ProtoReader(source);
  const tensors = new Map<string, OnnxInfo>();
  const metadata: Record<string, string> = {};
  let graphs = 0;
  for await (const { field, value, start, end } of reader.fields(0, source.size)) {
    if (field === ONNX.model.graph && value === undefined) {
      graphs++;
      for await (const inner of reader.fields(start, end)) {
        if (inner.field !== ONNX.graph.initializer || inner.value !== undefined) continue;
        const info = await readTensor(reader, inner.start, inner.end);
        if (!info) continue;
        if (tensors.has(info.name)) throw new SyntaxError(`${source.name}: initializer "${info.name}" is there twice`);
        tensors.set(info.name, info);
      }
    } else if (field === ONNX.model.metadata && value === undefined) {
      const [key, text] = await readPair(reader, start, end);
      metadata[key] = text;
    }
  }
  if (graphs !== 1) throw new SyntaxError(`${source.name}: is no ONNX model: it has ${graphs} graphs`);
  return {
    name: source.name,
    format: "ONNX",
    tensors,
    metadata,
    read: (info) => {
      const { start, dtype, shape } = info as OnnxInfo;
      return source.read(start, start + elementCount(shape) * ELEMENT_BYTES[dtype]);
    },
    close: () => source.close?.(),
  };
}

async function readTensor(reader: ProtoReader, start: number, end: number): Promise<OnnxInfo | undefined> {
  const dims: bigint[] = [];
  let name = "", type = 0, raw: { start: number; end: number } | undefined;
  for await (const { field, value, start: from, end: to } of reader.fields(start, end)) {
    if (field === ONNX.tensor.dims) {
      if (value !== undefined) dims.push(value);
      else dims.push(...await reader.packed(from, to, MAX_DIMENSIONS));
    } else if (field === ONNX.tensor.dataType && value !== undefined) type = Number(value);
    else if (field === ONNX.tensor.name && value === undefined) name = await reader.text(from, to, MAX_NAME);
    else if (field === ONNX.tensor.raw && value === undefined) raw = { start: from, end: to };
    if (dims.length > MAX_DIMENSIONS) break;
  }
  const fail = (message: string) => new SyntaxError(`${reader.source.name}: initializer "${name}" ${message}`);
  if (dims.length > MAX_DIMENSIONS) throw fail(`has more than ${MAX_DIMENSIONS} dimensions`);
  const dtype = Object.hasOwn(DTYPES, type) ? DTYPES[type] : undefined;
  if (!raw || !dtype) return undefined;
  const shape = dims.map(Number);
  const wanted = elementCount(shape) * ELEMENT_BYTES[dtype];
  if (!shape.every(Number.isSafeInteger) || wanted !== raw.end - raw.start) {
    throw fail(`is ${dtype} [${shape}], which takes ${wanted} bytes, but has ${raw.end - raw.start}`);
  }
  return { name, dtype, shape, start: raw.start };
}

async function readPair(reader: ProtoReader, start: number, end: number): Promise<[string, string]> {
  let key = "", text = "";
  for await (const { field, value, start: from, end: to } of reader.fields(start, end)) {
    if (value !== undefined) continue;
    if (field === 1) key = await reader.text(from, to, MAX_NAME);
    else if (field === 2) text = await reader.text(from, to, 2 ** 20);
  }
  return [key, text];
}
