// From any format to any other: which tensors of a file go out, under which names, in which element type.

import { writeHuggingFace } from "./huggingface_write.ts";
import { findNetwork, type NetworkTensor, type NetworkTensors } from "./network.ts";
import { writeNpy, writeNpz } from "./npy.ts";
import { writeVitOnnx } from "./onnx_write.ts";
import { type StateDict, writePytorch } from "./pytorch_write.ts";
import { type SafetensorsDType, type TensorToWrite, writeSafetensors } from "./safetensors.ts";
import { isFloat, type TensorFile, type TensorInfo, toFloat32, toFloat64 } from "./tensor_file.ts";
import { type BackboneConfig, isResnetConfig, isXcitConfig } from "../backbone.ts";
import { compareResnet, inferResnet } from "./resnet_weights.ts";
import { writeResnetOnnx } from "./resnet_onnx.ts";
import { writeXcitOnnx } from "./xcit_onnx.ts";
import { compareXcit, inferXcit } from "./xcit_weights.ts";
import {
  compareVit,
  inferVit,
  requireComplete,
  resamplePositions,
  VIT_KEY,
  type VitReading,
  type WeightsReport,
} from "./vit_weights.ts";

/** Formats that can be written. */
export const WEIGHT_FORMATS = ["safetensors", "pytorch", "huggingface", "onnx", "npz", "npy"] as const;

/** One of {@linkcode WEIGHT_FORMATS}. */
export type WeightFormat = (typeof WEIGHT_FORMATS)[number];

/** What to write, and how. */
export interface Conversion extends VitReading {
  /** What to write. */
  readonly format: WeightFormat;
  /** Element type of floating-point tensors; ONNX and numpy take float32. Default: float32. */
  readonly dtype?: "float32" | "float16" | "bfloat16";
  /** The projection head goes along; names then begin with `backbone.` and `head.`. */
  readonly head?: boolean;
  /** Every tensor under its own name, unchanged but for `dtype` (where given): no network is looked for. */
  readonly all?: boolean;
  /** ONNX: only square images of the size the position embedding is made for; otherwise any size. */
  readonly fixedSize?: boolean;
  /** ONNX: an output `attention` of the last block, [batch, heads, tokens, tokens]. */
  readonly attention?: boolean;
}

/** What was written. */
export interface ConversionResult {
  /** How many. */
  readonly tensors: number;
  /** Their elements together, running statistics of batch norms not counted. */
  readonly parameters: number;
  /** The network that was found; not looked for with `all`. */
  readonly backbone?: { readonly config: BackboneConfig; readonly report: WeightsReport };
}

/**
 * The format that a path asks for: by its ending; without one, a Hugging Face folder.
 *
 * @throws {RangeError} for an ending that is not known
 */
export function formatOfPath(path: string): WeightFormat {
  const name = path.replace(/[/\\]+$/, "").split(/[/\\]/).at(-1)!;
  const ending = /\.[a-z][a-z0-9]*$/i.exec(name)?.[0].toLowerCase();
  if (ending === undefined || path.endsWith("/")) return "huggingface";
  const known: Record<string, WeightFormat> = {
    ".safetensors": "safetensors",
    ".pth": "pytorch",
    ".pt": "pytorch",
    ".bin": "pytorch",
    ".onnx": "onnx",
    ".npz": "npz",
    ".npy": "npy",
  };
  if (!Object.hasOwn(known, ending)) {
    throw new RangeError(
      `${path}: ${ending} is no format of weights: use ${Object.keys(known).join(", ")}, or a folder`,
    );
  }
  return known[ending];
}

const DTYPES: Readonly<Record<NonNullable<Conversion["dtype"]>, SafetensorsDType>> = {
  float32: "F32",
  float16: "F16",
  bfloat16: "BF16",
};

/**
 * Writes the network of a file (or all its tensors) in another format, one tensor at a time.
 *
 * @example A network nobody has trained, as ONNX
 * ```ts
 * import { convertWeights, encodeSafetensors, openWeights, vitConfig, vitShapes } from "../../mod.ts";
 *
 * const config = vitConfig({ embedDim: 64, depth: 1, numHeads: 1, patchSize: 16, imageSize: 32 });
 * const zeros = (shape: number[]) => new Uint8Array(shape.reduce((a, b) => a * b, 4));
 * const bytes = await encodeSafetensors(vitShapes(config).map(([name, shape]) => ({
 *   name, dtype: "F32", shape, bytes: () => zeros(shape),
 * })));
 *
 * const file = await openWeights(bytes); // or "dino_deitsmall16_pretrain.pth"
 * const path = await Deno.makeTempFile({ suffix: ".onnx" });
 * const { tensors, backbone } = await convertWeights(file, path, { format: "onnx" });
 * console.log(tensors, backbone?.report.missing); // 18 []
 * file.close();
 * await Deno.remove(path);
 * ```
 *
 * @throws {SyntaxError} if the file is damaged, or holds no network of the kind the format needs
 * @throws {TypeError} if the format cannot hold what is asked for
 */
export async function convertWeights(
  file: TensorFile,
  path: string,
  conversion: Conversion,
): Promise<ConversionResult> {
  const { format, all, head } = conversion;
  if ((format === "npz" || format === "npy" || format === "onnx") && (conversion.dtype ?? "float32") === "bfloat16") {
    throw new TypeError(`${format} files are not written as bfloat16: use float32`);
  }
  if (all || format === "npy") return await convertAll(file, path, conversion);
  const network = findNetwork(file, conversion.network);
  const found = describe(network, conversion);
  const dtype = DTYPES[conversion.dtype ?? "float32"];
  const list: TensorToWrite[] = [];
  const rename = (name: string) => head ? name : name.replace(/^backbone\./, "");
  for (const [name, tensor] of network.tensors) {
    const isHead = name.startsWith("head.");
    if (isHead && !head || !isHead && !found.report.matched.includes(name)) continue;
    list.push(await toWrite(rename(name), tensor, dtype, found.positions));
    const counted = name.replace(/\.running_var$/, ".num_batches_tracked"); // behind the variance, as PyTorch has it
    const count = format === "onnx" ? undefined : network.counts.get(counted); // which ONNX has not
    if (count) list.push({ name: rename(counted), dtype: "I64", shape: [], bytes: () => readInt64(file, count) });
  }
  if (head && !list.some(({ name }) => name.startsWith("head."))) {
    throw new SyntaxError(`${file.name}: has no projection head`);
  }
  const metadata = { format: "pt", [VIT_KEY]: JSON.stringify(found.config) };
  await write(path, conversion, list, metadata, found.config, file);
  return {
    tensors: list.length,
    parameters: list.reduce(
      (sum, { name, shape }) =>
        sum + (/\.(running_(mean|var)|num_batches_tracked)$/.test(name) ? 0 : shape.reduce((a, b) => a * b, 1)),
      0,
    ),
    backbone: { config: found.config, report: found.report },
  };
}

async function write(
  path: string,
  { format, head, fixedSize, attention, network = "teacher" }: Conversion,
  list: TensorToWrite[],
  metadata: Record<string, string>,
  config: BackboneConfig | undefined,
  file: TensorFile,
): Promise<void> {
  if (format === "safetensors") return await writeSafetensors(path, list, metadata);
  if (format === "npz") return await writeNpz(path, list);
  if (format === "pytorch") {
    const flat: StateDict = new Map(list.map((tensor) => [tensor.name, tensor]));
    // The release's evaluations look for a full network under the name of its role.
    return await writePytorch(path, head ? new Map([[network, flat]]) : flat);
  }
  if (head) {
    throw new TypeError(
      `${format} has no place for a projection head: leave --head out, or write .pth or .safetensors`,
    );
  }
  if (format === "onnx" && config && isXcitConfig(config)) {
    return await writeXcitOnnx(path, config, list, { fixedSize, attention });
  }
  if (format === "onnx" && config && isResnetConfig(config)) {
    if (attention) throw new TypeError(`${file.name}: a ResNet has no attention to write: leave --attention out`);
    return await writeResnetOnnx(path, config, list, { fixedSize });
  }
  if (!config || "family" in config) {
    throw new TypeError(
      `${file.name}: only a Vision Transformer can be written as ${format}: use .safetensors, .pth, .onnx or .npz`,
    );
  }
  if (format === "huggingface" && config.registers) {
    throw new TypeError(
      `${file.name}: has ${config.registers} register tokens, which transformers' ViT has not: use .safetensors, .pth or .onnx`,
    );
  }
  if (format === "huggingface") return await writeHuggingFace(path, config, list);
  await writeVitOnnx(path, config, list, { fixedSize, attention });
}

interface Described {
  readonly config: BackboneConfig;
  readonly report: WeightsReport;
  /** The resampled position embedding, if one is wanted. */
  readonly positions?: (
    data: Float32Array<ArrayBuffer>,
  ) => { shape: readonly number[]; data: Float32Array<ArrayBuffer> };
}

function describe(network: NetworkTensors, conversion: Conversion): Described {
  const { config: given, imageSize } = conversion;
  switch (network.family) {
    case "vit":
      return describeVit(network, conversion);
    case "resnet": {
      const config = inferResnet(network), report = compareResnet(network, config);
      requireComplete(network.file, report, "ResNet");
      return { config, report };
    }
    case "xcit": {
      const config = inferXcit(network, given), report = compareXcit(network, config);
      requireComplete(network.file, report, "XCiT");
      return { config: { ...config, imageSize: imageSize ?? config.imageSize }, report }; // positions are computed
    }
  }
}

function describeVit(network: NetworkTensors, { config: given, imageSize }: Conversion): Described {
  const { config, notices } = inferVit(network, given);
  const report = compareVit(network, config, notices);
  requireComplete(network.file, report, "Vision Transformer");
  if (imageSize === undefined || imageSize === config.imageSize) return { config, report };
  const { shape } = network.tensors.get("backbone.pos_embed")!;
  const resample = (data: Float32Array<ArrayBuffer>) => resamplePositions(config, { shape, data }, imageSize);
  const resized = resample(new Float32Array(shape[1] * shape[2]));
  return { config: resized.config, report, positions: (data) => resample(data).tensor };
}

async function toWrite(
  name: string,
  tensor: NetworkTensor,
  dtype: SafetensorsDType,
  positions: Described["positions"],
): Promise<TensorToWrite> {
  if (positions && /(^|\.)pos_embed$/.test(name)) {
    const { shape, data } = positions(await tensor.read());
    return { name, dtype, shape, bytes: () => fromFloat32(dtype, data) };
  }
  return { name, dtype, shape: tensor.shape, bytes: async () => fromFloat32(dtype, await tensor.read()) };
}

/** A single integer of any type as PyTorch keeps its counts. */
async function readInt64(file: TensorFile, info: TensorInfo): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = await file.read(info);
  if (info.dtype === "I64" || info.dtype === "U64") return bytes;
  return new Uint8Array(BigInt64Array.of(BigInt(toFloat64(info.dtype, bytes)[0])).buffer);
}

async function convertAll(file: TensorFile, path: string, conversion: Conversion): Promise<ConversionResult> {
  const { format } = conversion;
  const list = [...file.tensors.values()].map((info): TensorToWrite => {
    const wanted = conversion.dtype
      ? DTYPES[conversion.dtype]
      : format.startsWith("np") && info.dtype === "BF16"
      ? "F32"
      : undefined;
    if (!isFloat(info.dtype) || wanted === undefined || wanted === info.dtype) {
      return { name: info.name, dtype: info.dtype, shape: info.shape, bytes: () => file.read(info) };
    }
    const bytes = async () => fromFloat32(wanted, toFloat32(info.dtype, await file.read(info)));
    return { name: info.name, dtype: wanted, shape: info.shape, bytes };
  });
  if (format === "npy") {
    if (list.length !== 1) throw new TypeError(`${file.name}: has ${list.length} tensors, .npy holds one: use .npz`);
    await writeNpy(path, list[0]);
  } else if (format === "huggingface" || format === "onnx") {
    throw new TypeError(
      `${format} holds a Vision Transformer only: leave --all out, or write .safetensors, .pth or .npz`,
    );
  } else await write(path, { ...conversion, head: false }, list, { format: "pt" }, undefined, file);
  return {
    tensors: list.length,
    parameters: list.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0),
  };
}

/** Bytes of 32-bit floats in another floating-point type, rounded to nearest. */
function fromFloat32(dtype: SafetensorsDType, data: Float32Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  if (dtype === "F32") return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  if (dtype === "F16") return new Uint8Array(Float16Array.from(data).buffer);
  const bits = new Uint32Array(data.buffer, data.byteOffset, data.length);
  const halves = Uint16Array.from(bits, (value) => {
    if ((value & 0x7fffffff) > 0x7f800000) return value >>> 16 | 0x40; // NaN stays NaN
    return (value + 0x7fff + (value >>> 16 & 1)) >>> 16; // ties to even
  });
  return new Uint8Array(halves.buffer);
}
