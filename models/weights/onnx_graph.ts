// Builds an ONNX graph node by node; initializers are streamed, so that a model never lies in memory twice.

import { type WriteBytes, writeFileAtomically } from "./atomic_file.ts";
import { ONNX } from "./onnx_read.ts";
import { ProtoWriter } from "./protobuf.ts";
import type { TensorToWrite } from "./safetensors.ts";
import { elementCount } from "./tensor_file.ts";

/** An attribute of a node; integers and lists of them, floats by class, strings, graphs. */
export type OnnxAttribute = number | readonly number[] | string | OnnxFloat | OnnxFloats | OnnxGraph;

/** A floating-point attribute, which a plain number is not. */
export class OnnxFloat {
  constructor(readonly value: number) {}
}

/** A list of floating-point numbers as an attribute. */
export class OnnxFloats {
  constructor(readonly values: readonly number[]) {}
}

/** An extent: a number, or a name where it varies. */
export type OnnxExtent = number | string;

/** Element types of graph inputs and outputs. */
const FLOAT = 1;
/** Opset 17 brought LayerNormalization; IR version 8 came with it. */
const OPSET = 17, IR_VERSION = 8;
/** A protocol-buffer message cannot be larger. */
const MAX_MODEL = 2 ** 31 - 1;

/** A graph under construction. Values are names; each method returns the name of what it makes. */
export class OnnxGraph {
  readonly #nodes: ProtoWriter[] = [];
  readonly #inputs: ProtoWriter[] = [];
  readonly #outputs: ProtoWriter[] = [];
  readonly #tensors: TensorToWrite[] = [];
  #count = 0;

  /** @param name of the graph, and of values in it that nobody names */
  constructor(readonly name: string) {}

  /** Adds a node with one output. */
  node(op: string, inputs: readonly string[], attributes: Record<string, OnnxAttribute> = {}, output?: string): string {
    const made = output ?? `${this.name}.${op}_${this.#count++}`;
    const node = new ProtoWriter();
    for (const input of inputs) node.text(1, input);
    node.text(2, made).text(3, made).text(4, op);
    for (const [name, value] of Object.entries(attributes)) node.message(5, attribute(name, value));
    this.#nodes.push(node);
    return made;
  }

  /** A list of whole numbers, or a single one. */
  integers(value: number | readonly number[]): string {
    return this.node("Constant", [], typeof value === "number" ? { value_int: value } : { value_ints: value });
  }

  float(value: number): string {
    return this.node("Constant", [], { value_float: new OnnxFloat(value) });
  }

  floats(values: readonly number[]): string {
    return this.node("Constant", [], { value_floats: new OnnxFloats(values) });
  }

  /** Weights, under their own name. */
  tensor(tensor: TensorToWrite): string {
    if (tensor.dtype !== "F32") {
      throw new TypeError(`"${tensor.name}" is ${tensor.dtype}: ONNX models are written in F32`);
    }
    this.#tensors.push(tensor);
    return tensor.name;
  }

  input(name: string, shape: readonly OnnxExtent[]): string {
    this.#inputs.push(valueInfo(name, shape));
    return name;
  }

  output(name: string, shape?: readonly OnnxExtent[]): void {
    this.#outputs.push(valueInfo(name, shape));
  }

  /** The graph as a message, for the branches of an If; must have no tensors. */
  message(): ProtoWriter {
    if (this.#tensors.length > 0) throw new TypeError(`graph ${this.name}: a branch cannot have tensors of its own`);
    return this.#structure();
  }

  /**
   * Writes a model around the graph, atomically.
   *
   * @throws {RangeError} if it would be larger than the format allows
   */
  async write(path: string, metadata: Readonly<Record<string, string>>): Promise<void> {
    const structure = this.#structure();
    const heads = this.#tensors.map((tensor) => tensorHead(tensor));
    const graphBytes = heads.reduce((sum, { outer, inner, bytes }) => sum + outer.length + inner.length + bytes, 0) +
      structure.length;
    const model = new ProtoWriter().varint(ONNX.model.irVersion, IR_VERSION).text(ONNX.model.producer, "denodino")
      .message(ONNX.model.opset, new ProtoWriter().text(1, "").varint(2, OPSET));
    for (const [key, value] of Object.entries(metadata)) {
      model.message(ONNX.model.metadata, new ProtoWriter().text(1, key).text(2, value));
    }
    model.header(ONNX.model.graph, graphBytes);
    if (model.length + graphBytes > MAX_MODEL) {
      throw new RangeError(`${path}: ${graphBytes} bytes are more than an ONNX file can hold (2 GB)`);
    }
    await writeFileAtomically(path, async (write: WriteBytes) => {
      await write(model.finish());
      await write(structure.finish());
      for (const [i, tensor] of this.#tensors.entries()) {
        const bytes = await tensor.bytes();
        if (bytes.length !== heads[i].bytes) {
          throw new RangeError(`tensor "${tensor.name}": ${bytes.length} bytes for F32 [${tensor.shape}]`);
        }
        await write(heads[i].outer);
        await write(heads[i].inner);
        await write(bytes);
      }
    });
  }

  #structure(): ProtoWriter {
    const graph = new ProtoWriter();
    for (const node of this.#nodes) graph.message(ONNX.graph.node, node);
    graph.text(ONNX.graph.name, this.name);
    for (const input of this.#inputs) graph.message(ONNX.graph.input, input);
    for (const output of this.#outputs) graph.message(ONNX.graph.output, output);
    return graph;
  }
}

function attribute(name: string, value: OnnxAttribute): ProtoWriter {
  const made = new ProtoWriter().text(1, name);
  if (value instanceof OnnxFloat) return made.float(2, value.value).varint(20, 1);
  if (value instanceof OnnxFloats) {
    for (const each of value.values) made.float(7, each);
    return made.varint(20, 6);
  }
  if (value instanceof OnnxGraph) return made.message(6, value.message()).varint(20, 5);
  if (typeof value === "string") return made.text(4, value).varint(20, 3);
  if (typeof value === "number") return made.varint(3, value).varint(20, 2);
  for (const each of value) made.varint(8, each);
  return made.varint(20, 7);
}

/** Without a shape only the element type is said, which outputs of branches may do. */
function valueInfo(name: string, shape?: readonly OnnxExtent[]): ProtoWriter {
  const type = new ProtoWriter().varint(1, FLOAT);
  if (shape) {
    const dims = new ProtoWriter();
    for (const extent of shape) {
      const dim = new ProtoWriter();
      dims.message(1, typeof extent === "number" ? dim.varint(1, extent) : dim.text(2, extent));
    }
    type.message(2, dims);
  }
  return new ProtoWriter().text(1, name).message(2, new ProtoWriter().message(1, type));
}

/** Everything of an initializer before its elements, in two parts: the graph's field, and the tensor's. */
function tensorHead({ name, shape }: TensorToWrite) {
  const bytes = elementCount(shape) * 4;
  const inner = new ProtoWriter();
  for (const extent of shape) inner.varint(ONNX.tensor.dims, extent);
  inner.varint(ONNX.tensor.dataType, FLOAT).text(ONNX.tensor.name, name).header(ONNX.tensor.raw, bytes);
  const outer = new ProtoWriter().header(ONNX.graph.initializer, inner.length + bytes);
  return { outer: outer.finish(), inner: inner.finish(), bytes };
}
