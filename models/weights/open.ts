// Opens any file of weights by what is in it, not by its name: one door for safetensors, PyTorch, numpy, ONNX and folders.

import { fileURLToPath } from "node:url";
import { openFolder, openShards } from "./huggingface.ts";
import { openNpy, openNpz } from "./npy.ts";
import { openOnnx } from "./onnx_read.ts";
import { openPytorch } from "./pytorch.ts";
import { type ByteSource, bytesSource, openFileSource, readSafetensorsHeader, readTensorBytes } from "./safetensors.ts";
import type { SafetensorsHeader, TensorRecord } from "./safetensors.ts";
import type { TensorFile } from "./tensor_file.ts";
import { readZipDirectory } from "./zip_archive.ts";

/** A path (of a file, an index of shards, or a Hugging Face folder), bytes, or anything readable by ranges. */
export type WeightsSource = string | URL | Uint8Array | ByteSource;

/**
 * Opens weights of any known format. Nothing but headers is read; close it after use.
 *
 * @example What a file holds
 * ```ts
 * import { describeLayout, encodeSafetensors, openWeights } from "../../mod.ts";
 *
 * const file = await openWeights(await encodeSafetensors([
 *   { name: "linear.weight", dtype: "F32", shape: [2, 3], bytes: () => new Uint8Array(24) },
 *   { name: "linear.bias", dtype: "F32", shape: [2], bytes: () => new Uint8Array(8) },
 * ])); // or the path of a .pth, .safetensors, .onnx or .npz file, or of a Hugging Face folder
 * for (const { name, dtype, shape } of file.tensors.values()) console.log(name, dtype, shape);
 * console.log((await describeLayout(file)).sentences[0]); // "a linear classifier of 2 classes on 3 features"
 * file.close();
 * ```
 *
 * @throws {SyntaxError} if it is damaged or of no known format
 * @throws {TypeError} if it is a pickle that asks for more than tensors and plain data
 * @throws {RangeError} if there is no such file
 */
export async function openWeights(from: WeightsSource): Promise<TensorFile> {
  if (from instanceof Uint8Array) return await openSource(bytesSource(from, "weights"));
  if (typeof from === "object" && "read" in from) return await openSource(from);
  if (from instanceof URL && from.protocol !== "file:") {
    throw new RangeError(`weights ${from}: only files are opened: fetch it, and hand over its bytes`);
  }
  const path = from instanceof URL ? fileURLToPath(from) : from;
  const stat = await Deno.stat(path).catch((error) => {
    throw error instanceof Deno.errors.NotFound ? new RangeError(`weights ${path}: there is no such file`) : error;
  });
  if (stat.isDirectory) return await openFolder(path, openPath);
  if (path.endsWith(".index.json")) return await openShards(path, openPath);
  return await openPath(path);
}

async function openPath(path: string): Promise<TensorFile> {
  const source = await openFileSource(path);
  try {
    return await openSource(source);
  } catch (error) {
    source.close!();
    throw error;
  }
}

async function openSource(source: ByteSource): Promise<TensorFile> {
  const head = await source.read(0, Math.min(16, source.size));
  // First safetensors: a length of less than 4 GiB, whose low bytes may look like anything, and the brace of its JSON.
  if (head[8] === 0x7b && head.subarray(4, 8).every((byte) => byte === 0)) return await openSafetensors(source);
  if (head[0] === 0x50 && head[1] === 0x4b) {
    const members = [...(await readZipDirectory(source)).keys()];
    const npz = members.length > 0 && members.every((path) => path.endsWith(".npy"));
    return npz ? await openNpz(source) : await openPytorch(source);
  }
  if (head[0] === 0x93 && head[1] === 0x4e) return await openNpy(source);
  if (head[0] === 0x80) return await openPytorch(source);
  if (head[0] === 0x08 && head[1] < 32) return await openOnnx(source); // ir_version, the first field of a model
  throw new SyntaxError(
    `${source.name}: is none of safetensors, PyTorch (.pth), numpy (.npy, .npz) and ONNX by its first bytes`,
  );
}

/** A safetensors file as a {@linkcode TensorFile}. */
export async function openSafetensors(source: ByteSource): Promise<TensorFile> {
  const { tensors, metadata }: SafetensorsHeader = await readSafetensorsHeader(source);
  return {
    name: source.name,
    format: "safetensors",
    tensors,
    metadata,
    read: (info) => readTensorBytes(source, info as TensorRecord),
    close: () => source.close?.(),
  };
}
