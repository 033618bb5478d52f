// Brings a part of a batch to the device as 8-bit pixels and crop tables, which the step's own kernels augment.

import { type BackboneConfig, droppedBranches, inputPatch } from "../models/backbone.ts";
import type { PatchBatch } from "../models/vit.ts";
import type { Backend } from "../models/graph/backend.ts";
import { augment, type AugmentTensors, pixelBuffer, pixelRoom } from "../models/graph/ops/augment.ts";
import { gatherRows } from "../models/graph/ops/tokens.ts";
import { canViewRows, type Program, rows } from "../models/graph/program.ts";
import type { Tensor } from "../models/graph/tensor.ts";
import type { FittedConfig } from "./config.ts";
import type { PixelBatch, PixelSource } from "./data/dataset.ts";
import { MultiCropPlanner } from "./data/multicrop.ts";
import { DropPath, type ViewGroup } from "./drop_path.ts";
import { type Share, WHOLE } from "./ranks/ranks.ts";
import type { CropSource } from "./step.ts";

/** Extremes of a data set, for which room is made once. */
export interface PixelExtremes {
  /** Longest side of any image, in pixels. */
  readonly longestSide: number;
  /** Bytes of the largest batches: entry n − 1 is what the n largest images take. */
  batchBytes(images: number): number;
}

/** Looks at the size of every image. */
export function pixelExtremes(...sources: readonly PixelSource[]): PixelExtremes {
  const bytes: number[] = [];
  let longestSide = 1;
  for (const source of sources) {
    for (let i = 0; i < source.length; i++) {
      const { height, width } = source.size(i);
      bytes.push(Math.ceil(height * width * 3 / 4) * 4); // images begin at multiples of 4 bytes
      longestSide = Math.max(longestSide, height, width);
    }
  }
  bytes.sort((a, b) => b - a);
  return {
    longestSide,
    batchBytes(images) {
      let sum = 0;
      // A data set smaller than a batch is repeated in it: any of its images, so the largest.
      for (let i = 0; i < images; i++) sum += bytes[i < bytes.length ? i : 0];
      return sum;
    },
  };
}

/** Consecutive views of one size that the student computes together. */
interface CropChunk extends ViewGroup {
  /** Which of the planner's groups they are in. */
  readonly group: number;
  /** Views of that group before them. */
  readonly offset: number;
}

/** Splits groups into chunks of at most so many views. */
function chunksOf(groups: readonly ViewGroup[], most: number): CropChunk[] {
  return groups.flatMap(({ firstView, views }, group) => {
    const count = Math.max(1, Math.ceil(views / most));
    return Array.from({ length: count }, (_, i) => {
      const offset = Math.floor(i * views / count), end = Math.floor((i + 1) * views / count);
      return { group, offset, firstView: firstView + offset, views: end - offset };
    });
  });
}

/** Some views of a group of crops, which lie view-major. */
function viewsOf(p: Program, all: PatchBatch, images: number, offset: number, views: number): PatchBatch {
  if (views * images === all.images) return all;
  const perImage = all.patches.shape[0] / all.images;
  const start = offset * images * perImage, count = views * images * perImage;
  const patches = canViewRows(all.patches, start)
    ? rows(all.patches, start, count)
    : gatherRows(p, all.patches, { start, count });
  return { ...all, patches, images: views * images };
}

/** The inputs of one part of a batch, and the operations that make crops of them. */
export class CropFeed {
  readonly #pixels: Tensor;
  readonly #planner: MultiCropPlanner;
  readonly #dropPath: DropPath;
  /** What the student computes at a time: the planner's groups, or chunks of them. */
  readonly #chunks: readonly CropChunk[];
  /** Tables of each program that was written: the first part's, and the later parts'. */
  readonly #emitted: AugmentTensors[][] = [];

  /** Makes room for `images` images: one part of a batch, or what one rank has of it. */
  constructor(
    readonly config: FittedConfig,
    readonly backbone: BackboneConfig,
    readonly images: number,
    extremes: PixelExtremes,
    readonly share: Share = WHOLE,
  ) {
    this.#pixels = pixelBuffer(extremes.batchBytes(images));
    this.#planner = new MultiCropPlanner(config, config.seed, images, extremes.longestSide);
    const { probabilities, branches } = droppedBranches(backbone, config.dropPathRate);
    this.#chunks = chunksOf(this.#planner.groups, config.cropChunk ?? Infinity);
    this.#dropPath = new DropPath(probabilities, branches, this.#chunks, images, config.seed);
  }

  /** Emits the augmentation; to be handed to `stepPrograms`. */
  readonly source: CropSource = (p: Program) => {
    const { mean, std } = this.config;
    const emitted: AugmentTensors[] = [];
    const groups = this.#planner.groups.map((group) => {
      const made = augment(p, this.#pixels, group.planner.capacity, inputPatch(this.backbone), {
        mean,
        deviation: std,
      });
      emitted.push(made);
      return {
        patches: made.crops,
        images: group.views * this.images,
        height: group.size,
        width: group.size,
      };
    });
    this.#emitted.push(emitted);
    const student = this.#chunks.map(({ group, offset, views }, i) => ({
      ...viewsOf(p, groups[group], this.images, offset, views),
      dropPath: (block: number, branch: number) => this.#dropPath.factors(i, block, branch),
    }));
    return { teacher: [groups[0]], student };
  };

  /** Views of an image. */
  get views(): number {
    return this.#planner.groups.reduce((sum, group) => sum + group.views, 0);
  }

  /**
   * Draws the crops of a part, on the host alone: may run while the device works.
   *
   * @param indices of the images in the data set
   */
  plan(batch: PixelBatch, indices: ArrayLike<number>, epoch: number): void {
    this.#planner.plan(batch.table, indices, epoch, pixelRoom(this.#pixels));
  }

  /**
   * Sends pixels, tables of the last {@linkcode plan} and drop-path factors.
   *
   * @param part of the batch, from 0
   */
  write(backend: Backend, batch: PixelBatch, step: number, part: number): void {
    backend.write(this.#pixels, batch.pixels);
    const tables = this.#emitted[Math.min(part, this.#emitted.length - 1)];
    this.#planner.groups.forEach(({ planner, tapWords }, g) => {
      backend.write(tables[g].table, planner.table);
      backend.write(tables[g].taps, planner.taps.subarray(0, tapWords));
    });
    this.#dropPath.write(backend, step, (part * this.share.size + this.share.rank) * this.images);
  }

  /** Everything that is written by the host, to be freed. */
  tensors(): Tensor[] {
    const tables = this.#emitted.flat().flatMap(({ table, taps, levels }) => [table, taps, levels]);
    return [this.#pixels, this.#dropPath.tensor, ...tables];
  }
}
