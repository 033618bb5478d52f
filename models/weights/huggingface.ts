// Hugging Face folders and sharded weights: several files read as one, with the architecture that lies beside them.

import { dirname, join } from "node:path";
import type { TensorFile, TensorInfo } from "./tensor_file.ts";

type OpenPath = (path: string) => Promise<TensorFile>;

// In the order transformers looks for them.
const FILES = [
  "model.safetensors",
  "model.safetensors.index.json",
  "pytorch_model.bin",
  "pytorch_model.bin.index.json",
];
/** An index of a hundred thousand tensors. */
const MAX_JSON = 64 * 2 ** 20;

/**
 * Opens a folder as transformers writes it: weights, whole or in shards, config.json and preprocessor_config.json if they are there.
 *
 * @throws {RangeError} if it has no weights
 */
export async function openFolder(folder: string, open: OpenPath): Promise<TensorFile> {
  const config = await readIfThere(join(folder, "config.json"));
  const preprocessor = await readIfThere(join(folder, "preprocessor_config.json"));
  for (const file of FILES) {
    const path = join(folder, file);
    if (!await exists(path)) continue;
    const weights = file.endsWith(".index.json") ? await openShards(path, open) : await open(path);
    return { ...weights, name: folder, format: `Hugging Face folder of ${weights.format}`, config, preprocessor };
  }
  throw new RangeError(`weights ${folder}: the folder has none of ${FILES.join(", ")}`);
}

async function readIfThere(path: string): Promise<Record<string, unknown> | undefined> {
  return await exists(path) ? await readJson(path) : undefined;
}

/** Whether a folder holds weights as transformers writes them. */
export async function isWeightsFolder(folder: string): Promise<boolean> {
  for (const file of FILES) if (await exists(join(folder, file))) return true;
  return false;
}

/**
 * Opens the shards that an index names, as one file.
 *
 * @throws {SyntaxError} if the index is malformed, or names tensors that its shards lack
 */
export async function openShards(indexPath: string, open: OpenPath): Promise<TensorFile> {
  const { weight_map: map } = await readJson(indexPath);
  if (typeof map !== "object" || map === null || Array.isArray(map)) {
    throw new SyntaxError(`${indexPath}: has no weight_map`);
  }
  const opened = new Map<string, TensorFile>();
  const tensors = new Map<string, TensorInfo>();
  const owners = new Map<TensorInfo, TensorFile>();
  const close = () => opened.forEach((shard) => shard.close());
  try {
    for (const [name, file] of Object.entries(map)) {
      // A shard lies beside its index: a path could lead anywhere.
      if (typeof file !== "string" || !/^[\w.-]+$/.test(file) || file.startsWith(".")) {
        throw new SyntaxError(`${indexPath}: ${JSON.stringify(file)} is not the name of a file beside it`);
      }
      let shard = opened.get(file);
      if (!shard) {
        const path = join(dirname(indexPath), file);
        if (!await exists(path)) throw new RangeError(`weights ${indexPath}: its shard ${file} is not there`);
        opened.set(file, shard = await open(path));
      }
      const info = shard.tensors.get(name);
      if (!info) throw new SyntaxError(`${indexPath}: tensor "${name}" is not in ${file}`);
      tensors.set(name, info);
      owners.set(info, shard);
    }
  } catch (error) {
    close();
    throw error;
  }
  const [first] = opened.values();
  return {
    name: indexPath,
    format: `${first?.format ?? "no files"} in ${opened.size} shards`,
    tensors,
    metadata: first?.metadata ?? {},
    read: (info) => owners.get(info)!.read(info),
    close,
  };
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then((stat) => stat.isFile, () => false);
}

async function readJson(path: string): Promise<Record<string, unknown>> {
  const { size } = await Deno.stat(path);
  if (size > MAX_JSON) throw new SyntaxError(`${path}: ${size} bytes of JSON are not believable`);
  let json: unknown;
  try {
    json = JSON.parse(await Deno.readTextFile(path));
  } catch (error) {
    throw new SyntaxError(`${path}: is not JSON (${(error as Error).message.slice(0, 80)})`);
  }
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new SyntaxError(`${path}: is no JSON object`);
  }
  return json as Record<string, unknown>;
}
