// What the ranks of a run settle among themselves before and between updates: that they do the same, from the same values.

import { ALONE, type Communicator } from "../../models/graph/communicator.ts";
import type { Backend } from "../../models/graph/backend.ts";
import { rootOf, type Tensor } from "../../models/graph/tensor.ts";
import { type Config, configFields } from "../config.ts";
import { flagOf } from "../config/field.ts";
import type { TrainingState } from "../run/checkpoint.ts";

/** Which part of every batch a rank computes. */
export type Share = Pick<Communicator, "rank" | "size">;

/** The part of a rank that is alone. */
export const WHOLE: Share = { rank: 0, size: 1 };

/** Fields that may differ from rank to rank: what each machine has, and what rank 0 alone does. */
export const LOCAL_FIELDS: ReadonlySet<string> = new Set<keyof Config>([
  "data", // its fingerprint is compared instead
  "val",
  "out",
  "numWorkers",
  "cacheDir",
  "threads",
  "adapter",
  "backend", // its fingerprint is compared instead
  "webgpu",
  "recompute",
]);

/** What must be the same on every rank. */
export interface Facts {
  readonly config: Config;
  readonly data: TrainingState["data"];
  /** The backend's fingerprint. */
  readonly backend: string;
}

/** The ranks of a run, of which one may be all there are. */
export class Ranks {
  constructor(readonly communicator: Communicator = ALONE) {}

  /** Whether this rank writes, evaluates and reports. */
  get isFirst(): boolean {
    return this.communicator.rank === 0;
  }

  /** For each wish, whether any rank has it: the same answer on all of them. */
  async any(...wishes: readonly boolean[]): Promise<boolean[]> {
    if (this.communicator.size === 1) return [...wishes];
    const all = await this.communicator.allGather(Uint8Array.from(wishes, Number));
    return wishes.map((_, i) => all.some((those) => those[i] !== 0));
  }

  /** The value of rank 0, which must be plain enough for JSON. */
  async share<T>(value: T): Promise<T> {
    if (this.communicator.size === 1) return value;
    const text = new TextEncoder().encode(this.isFirst ? JSON.stringify(value) : "");
    const length = Uint32Array.of(text.length);
    await this.communicator.broadcast(new Uint8Array(length.buffer));
    const bytes = this.isFirst ? text : new Uint8Array(length[0]);
    await this.communicator.broadcast(bytes);
    return JSON.parse(new TextDecoder().decode(bytes));
  }

  /** Gives every rank the contents that tensors have on rank 0. */
  async shareTensors(backend: Backend, tensors: Iterable<Tensor>): Promise<void> {
    if (this.communicator.size === 1) return;
    for (const root of new Set([...tensors].map(rootOf))) {
      const data = await backend.read(root);
      await this.communicator.broadcast(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
      if (!this.isFirst) backend.write(root, data);
    }
  }

  /**
   * Makes sure that every rank is about to do the same.
   *
   * @throws {RangeError} on all of them, naming the first that differs from rank 0, and in what
   */
  async requireSame(facts: Facts): Promise<void> {
    if (this.communicator.size === 1) return;
    const all = await this.#gather(facts);
    all.forEach((other, rank) => {
      const difference = differenceOf(other, all[0]);
      if (difference) throw new RangeError(`rank ${rank} has ${difference}: start all ranks with the same`);
    });
  }

  /** The value of every rank. */
  async #gather<T>(value: T): Promise<T[]> {
    const text = new TextEncoder().encode(JSON.stringify(value));
    const lengths = (await this.communicator.allGather(new Uint8Array(Uint32Array.of(text.length).buffer)))
      .map((bytes) => new Uint32Array(bytes.slice().buffer)[0]);
    const padded = new Uint8Array(Math.max(...lengths));
    padded.set(text);
    const all = await this.communicator.allGather(padded);
    return all.map((bytes, rank) => JSON.parse(new TextDecoder().decode(bytes.subarray(0, lengths[rank]))));
  }
}

function differenceOf(other: Facts, first: Facts): string | undefined {
  for (const key of Object.keys(configFields) as (keyof Config)[]) {
    const [theirs, ours] = [other, first].map(({ config }) => JSON.stringify(config[key]));
    if (!LOCAL_FIELDS.has(key) && theirs !== ours) return `--${flagOf(key)} ${theirs} and rank 0 ${ours}`;
  }
  if (other.data.fingerprint !== first.data.fingerprint) {
    const show = ({ name, images, fingerprint }: Facts["data"]) =>
      `${name} (${images} images, ${fingerprint.slice(0, 12)})`;
    return `other images than rank 0, ${show(other.data)} instead of ${show(first.data)}`;
  }
  if (other.backend !== first.backend) {
    return `another backend than rank 0, ${other.backend} instead of ${first.backend}`;
  }
}
