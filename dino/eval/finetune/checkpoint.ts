// A fine-tuned network on disk: a backbone that every command reads, its classifier, and what a stopped run needs.

import { arenaLength, type Segment } from "../../../models/graph/arena.ts";
import {
  openFileSourceIfAny,
  readFloats,
  readSafetensorsHeader,
  readTensorBytes,
  type TensorToWrite,
  writeSafetensors,
} from "../../../models/weights/safetensors.ts";
import { isBatchCount } from "../../../models/weights/network.ts";
import { toFloat64 } from "../../../models/weights/tensor_file.ts";
import { VIT_KEY } from "../../../models/weights/vit_weights.ts";
import type { BackboneConfig } from "../../../models/backbone.ts";
import type { FinetuneState } from "./finetune.ts";

/** A run between two epochs. */
export interface FinetuneCheckpoint {
  readonly state: FinetuneState;
  readonly epochs: number;
  /** Best top-1 so far, in percent. */
  readonly best: number;
  /** Of everything that must not change: images, weights, hyperparameters. */
  readonly fingerprint: string;
}

/** Where the tensors of a run lie in its arenas. */
export interface FinetuneLayout {
  /** Of parameters and moments. */
  readonly segments: readonly Segment[];
  /** Of the running statistics of batch norms. */
  readonly buffers: readonly Segment[];
}

const KEY = "denodino.finetune";
const CURRENT = "current.";

/**
 * Writes the network as `backbone.*` and `classifier.*`, and moments as `first.*` and `second.*`. Where an average is kept,
 * it is the network, and the parameters that are trained are `current.*`.
 */
export async function writeFinetuned(
  path: string,
  { segments, buffers }: FinetuneLayout,
  backbone: BackboneConfig,
  { state, epochs, best, fingerprint }: FinetuneCheckpoint,
  classNames?: readonly string[],
): Promise<void> {
  const tensors: TensorToWrite[] = [];
  const { parameters, first, second, average } = state;
  const averaged = average.length > 0;
  const parts: [prefix: string, flat: Float32Array, members: readonly Segment[]][] = [
    ["", averaged ? average : parameters, segments],
    ["", state.buffers, buffers],
    ["first.", first, segments],
    ["second.", second, segments],
    ...averaged ? [[CURRENT, parameters, segments] as [string, Float32Array, readonly Segment[]]] : [],
  ];
  for (const [prefix, flat, members] of parts) {
    for (const { name, shape, offset, length } of members) {
      const inside = name.startsWith("classifier.") ? name : `backbone.${name}`;
      const part = flat.subarray(offset, offset + length);
      const bytes = () => new Uint8Array(part.buffer, part.byteOffset, part.byteLength);
      tensors.push({ name: prefix + inside, dtype: "F32", shape, bytes });
    }
  }
  for (const [name, count] of state.batchCounts) {
    const bytes = () => new Uint8Array(BigInt64Array.of(BigInt(count)).buffer);
    tensors.push({ name: `backbone.${name}`, dtype: "I64", shape: [], bytes });
  }
  const metadata: Record<string, string> = {
    [VIT_KEY]: JSON.stringify(backbone),
    [KEY]: JSON.stringify({ step: state.step, epochs, best, fingerprint }),
  };
  if (classNames) metadata.classNames = JSON.stringify(classNames);
  await writeSafetensors(path, tensors, metadata);
}

/**
 * Reads a run to go on with; undefined if there is no such file.
 *
 * @throws {RangeError} if it is of another run
 * @throws {SyntaxError} if it is damaged, or no fine-tuned network
 */
export async function readFinetuned(
  path: string,
  { segments, buffers }: FinetuneLayout,
  fingerprint: string,
): Promise<FinetuneCheckpoint | undefined> {
  const source = await openFileSourceIfAny(path);
  if (!source) return undefined;
  try {
    const { metadata, tensors } = await readSafetensorsHeader(source);
    if (metadata[KEY] === undefined) throw new SyntaxError(`${path}: holds no fine-tuned network: name another --out`);
    const kept = JSON.parse(metadata[KEY]);
    if (kept.fingerprint !== fingerprint) {
      throw new RangeError(
        `${path}: was trained from other weights, images or hyperparameters: name another --out, or remove it`,
      );
    }
    const read = async (prefix: string, members = segments) => {
      const flat = new Float32Array(arenaLength(members));
      for (const { name, offset } of members) {
        const record = tensors.get(prefix + (name.startsWith("classifier.") ? name : `backbone.${name}`));
        if (!record) throw new SyntaxError(`${path}: ${prefix}${name} is missing`);
        flat.set(await readFloats(source, record), offset);
      }
      return flat;
    };
    const batchCounts = new Map<string, number>();
    for (const record of tensors.values()) { // files of earlier versions have none
      if (!isBatchCount(record.name)) continue;
      const [count] = toFloat64(record.dtype, await readTensorBytes(source, record));
      batchCounts.set(record.name.replace(/^backbone\./, ""), count);
    }
    const { step, epochs, best } = kept;
    const averaged = tensors.has(`${CURRENT}classifier.weight`);
    const state = {
      parameters: await read(averaged ? CURRENT : ""),
      average: averaged ? await read("") : new Float32Array(),
      buffers: await read("", buffers),
      batchCounts,
      first: await read("first."),
      second: await read("second."),
      step,
    };
    return { state, epochs, best, fingerprint };
  } finally {
    source.close!();
  }
}
