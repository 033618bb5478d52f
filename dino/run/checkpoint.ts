// Everything a run needs to go on, in one safetensors file: tensors under their published names, the rest as JSON.

import { crc32 } from "node:zlib";
import type { Backend } from "../../models/graph/backend.ts";
import { byteLength, hostArray, rootOf, type Tensor } from "../../models/graph/tensor.ts";
import {
  type ByteSource,
  openFileSource,
  readFloats,
  readSafetensorsHeader,
  readTensorBytes,
  type SafetensorsHeader,
  safetensorsSize,
  type TensorToWrite,
  writeSafetensors,
} from "../../models/weights/safetensors.ts";
import { isBatchCount } from "../../models/weights/network.ts";
import { toFloat64 } from "../../models/weights/tensor_file.ts";
import { VIT_KEY } from "../../models/weights/vit_weights.ts";
import type { BatchCounts } from "../batch_counts.ts";
import type { FittedConfig } from "../config.ts";
import type { KnnRow } from "./events.ts";
import type { SavedSums } from "./metrics.ts";
import { backboneOf } from "../config/networks.ts";

/** Version of the layout of a run folder and of the state inside its checkpoints. */
export const RUN_FORMAT = 1;

/**
 * Tensors of a checkpoint by name:
 * `student.backbone.*`, `student.head.*`, `teacher.*` likewise (batch-norm buffers included),
 * `optimizer.exp_avg.*` and `optimizer.exp_avg_sq.*` under the student's names, and `center`. Beside them a checkpoint holds the
 * {@linkcode BatchCounts}, int64 scalars.
 */
export type CheckpointTensors = ReadonlyMap<string, Tensor>;

/** What a run remembers besides tensors. */
export interface TrainingState {
  /** Version, as of the run folder. */
  readonly format: number;
  /** Every hyperparameter, fitted to the images. */
  readonly config: FittedConfig;
  /** The images, by a fingerprint that changes when they do. */
  readonly data: { readonly name: string; readonly images: number; readonly fingerprint: string };
  /** What the backend's sums depend on: device, threads, mode and tuned choices. */
  readonly backend: string;
  /** Updates made. Epoch and position in it follow, and with the seed every random draw. */
  readonly step: number;
  /** Updates of an epoch. */
  readonly stepsPerEpoch: number;
  /** Updates each parameter group has had. */
  readonly optimizerSteps: readonly number[];
  /** Sums over the updates of the epoch so far. */
  readonly epochSums: SavedSums;
  /** Sums over the updates since the log's last row of updates. */
  readonly windowSums: SavedSums;
  /** k-NN of the untrained network and of pixels, and the last of the run, to be told at its end. */
  readonly knn: readonly KnnRow[];
  /** Bytes of the log that belong to these updates. */
  readonly logBytes: number;
}

/** Metadata key of what a checkpoint remembers besides tensors. */
export const STATE_KEY = "denodino.state";

/**
 * CRC-32 of all other tensors' bytes, in the order of the file: the last tensor, so that the file is written in one go. It
 * tells a file whose blocks were lost or zeroed, which its header cannot.
 */
const CHECKSUM_KEY = "denodino.crc32";

/** Bytes of the checkpoint, but for a few kilobytes of state and counts. */
export function checkpointSize(tensors: CheckpointTensors): number {
  return safetensorsSize(withChecksum([...tensors].map(([name, t]) => toWrite(name, t, () => new Uint8Array(0)))));
}

/**
 * Writes a checkpoint atomically.
 *
 * @throws whatever the disk throws, such as no space left; the file that was there is intact then
 */
export async function writeCheckpoint(
  path: string,
  backend: Backend,
  tensors: CheckpointTensors,
  state: TrainingState,
  counts: BatchCounts = new Map(),
): Promise<number> {
  // Tensors of one arena are read from the device at once: each reading costs a GPU ten milliseconds.
  let held: { root: Tensor; data: Float32Array } | undefined;
  const read = async (tensor: Tensor) => {
    const root = rootOf(tensor);
    if (held?.root !== root) held = { root, data: await backend.read(root) as Float32Array };
    const { data } = held;
    return new Uint8Array(data.buffer, data.byteOffset + 4 * (tensor.offset ?? 0), byteLength(tensor));
  };
  const list = withChecksum([
    ...[...counts].map(([name, count]): TensorToWrite => {
      const bytes = () => new Uint8Array(BigInt64Array.of(BigInt(count)).buffer);
      return { name, dtype: "I64", shape: [], bytes }; // first in the file, by the size of its element
    }),
    ...[...tensors].map(([name, tensor]) => toWrite(name, tensor, () => read(tensor))),
  ]);
  const metadata = {
    format: "denodino",
    [STATE_KEY]: JSON.stringify(state),
    // What no shape tells, for whoever reads the weights alone.
    [VIT_KEY]: JSON.stringify(backboneOf(state.config)),
  };
  await writeSafetensors(path, list, metadata);
  return safetensorsSize(list, metadata);
}

function toWrite(name: string, tensor: Tensor, bytes: TensorToWrite["bytes"]): TensorToWrite {
  if (tensor.dtype !== "f32") throw new TypeError(`checkpoint: ${name} is ${tensor.dtype}, only f32 is kept`);
  return { name, dtype: "F32", shape: tensor.shape, bytes };
}

/** Tensors, which are asked for their bytes in this order, and behind them the checksum of what they gave. */
function withChecksum(list: readonly TensorToWrite[]): TensorToWrite[] {
  let sum = 0;
  const summed = list.map((tensor) => ({
    ...tensor,
    bytes: async () => {
      const bytes = await tensor.bytes();
      sum = crc32(bytes, sum);
      return bytes;
    },
  }));
  const bytes = () => new Uint8Array(Uint32Array.of(sum).buffer);
  return [...summed, { name: CHECKSUM_KEY, dtype: "U8", shape: [4], bytes }];
}

/** @throws {SyntaxError} if the tensors are not those that were written; files of earlier versions have no checksum */
async function verifyChecksum(source: ByteSource, { tensors }: SafetensorsHeader): Promise<void> {
  const expected = tensors.get(CHECKSUM_KEY);
  if (expected === undefined) return;
  let sum = 0;
  for (const record of [...tensors.values()].sort((a, b) => a.start - b.start)) {
    if (record !== expected) sum = crc32(await readTensorBytes(source, record), sum);
  }
  const [written] = new Uint32Array((await readTensorBytes(source, expected)).buffer);
  if (sum !== written) {
    throw new SyntaxError(`${source.name}: its tensors are not what was written (checksum): the file is damaged`);
  }
}

/**
 * What a checkpoint remembers besides tensors; cheap, so that a run can be judged before a device is opened.
 *
 * @throws {SyntaxError} if the file is truncated or is not a checkpoint of ours
 * @throws {RangeError} if it is of another format version
 * @throws {Deno.errors.NotFound} if it is not there
 */
export async function readTrainingState(path: string): Promise<TrainingState> {
  const source = await openFileSource(path);
  try {
    return stateOf(source, await readSafetensorsHeader(source));
  } finally {
    source.close!();
  }
}

function stateOf(source: ByteSource, { metadata }: SafetensorsHeader): TrainingState {
  const text = metadata[STATE_KEY];
  if (text === undefined) {
    throw new SyntaxError(`${source.name}: holds weights but no training state: start from it with --init`);
  }
  const state = JSON.parse(text) as TrainingState;
  if (state.format !== RUN_FORMAT) {
    throw new RangeError(`${source.name}: is of format ${state.format}, this version reads ${RUN_FORMAT}`);
  }
  return state;
}

/**
 * Checks that a checkpoint is whole and could be read into these tensors, before a device is opened or compiled for.
 *
 * @throws as {@linkcode readCheckpoint}
 */
export async function checkCheckpoint(path: string, tensors: CheckpointTensors): Promise<TrainingState> {
  const source = await openFileSource(path);
  try {
    return (await checked(source, tensors)).state;
  } finally {
    source.close!();
  }
}

/**
 * Reads a checkpoint into the device. Every tensor is checked before the first is written.
 *
 * @throws {SyntaxError} if the file is truncated, damaged or not a checkpoint of ours
 * @throws {RangeError} if it is of another architecture, naming shapes that differ
 * @throws {Deno.errors.NotFound} if it is not there
 */
export async function readCheckpoint(
  path: string,
  backend: Backend,
  tensors: CheckpointTensors,
): Promise<TrainingState> {
  const source = await openFileSource(path);
  try {
    const { header, state } = await checked(source, tensors);
    for (const [root, members] of byRoot(tensors)) {
      const flat = hostArray(root) as Float32Array;
      for (const [name, tensor] of members) {
        flat.set(await readFloats(source, header.tensors.get(name)!), tensor.offset ?? 0);
      }
      backend.write(root, flat);
    }
    return state;
  } finally {
    source.close!();
  }
}

/**
 * The counts a checkpoint holds; none of earlier versions.
 *
 * @throws as {@linkcode readTrainingState}
 */
export async function readCheckpointCounts(path: string): Promise<BatchCounts> {
  const source = await openFileSource(path);
  try {
    const counts = new Map<string, number>();
    for (const record of (await readSafetensorsHeader(source)).tensors.values()) {
      if (!isBatchCount(record.name)) continue;
      counts.set(record.name, toFloat64(record.dtype, await readTensorBytes(source, record))[0]);
    }
    return counts;
  } finally {
    source.close!();
  }
}

async function checked(source: ByteSource, tensors: CheckpointTensors) {
  const header = await readSafetensorsHeader(source);
  const state = stateOf(source, header);
  const differences = compareShapes(header, tensors);
  if (differences.length > 0) {
    throw new RangeError(
      `${source.name}: is of another architecture: ${shorten(differences)}: ` +
        "resume with the configuration it was trained with",
    );
  }
  await verifyChecksum(source, header);
  return { header, state };
}

/** Sentences on every tensor that is missing, unexpected or of another shape. */
function compareShapes({ tensors: there }: SafetensorsHeader, here: CheckpointTensors): string[] {
  const differences: string[] = [];
  for (const [name, { shape }] of here) {
    const record = there.get(name);
    if (!record) differences.push(`${name} [${shape}] is missing`);
    else if (record.shape.join() !== shape.join()) {
      differences.push(`${name} is [${record.shape}] there and [${shape}] here`);
    } else if (record.dtype !== "F32") differences.push(`${name} is ${record.dtype} there and F32 here`);
  }
  for (const [name, { shape }] of there) {
    if (!here.has(name) && name !== CHECKSUM_KEY && !isBatchCount(name)) {
      differences.push(`${name} [${shape}] is not expected`);
    }
  }
  return differences;
}

function shorten(sentences: string[], most = 5): string {
  const shown = sentences.slice(0, most).join("; ");
  return sentences.length > most ? `${shown}; and ${sentences.length - most} more` : shown;
}

function byRoot(tensors: CheckpointTensors): Map<Tensor, [string, Tensor][]> {
  const groups = new Map<Tensor, [string, Tensor][]>();
  for (const entry of tensors) {
    const root = rootOf(entry[1]);
    groups.set(root, [...(groups.get(root) ?? []), entry]);
  }
  return groups;
}
