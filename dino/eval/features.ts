// Features of whole data sets: every image resized, cropped at its centre, and passed through a frozen backbone.

import { type Backend, type Executable, OutOfMemoryError } from "../../models/graph/backend.ts";
import { type BackboneConfig, inputPatch } from "../../models/backbone.ts";
import {
  augment,
  type AugmentTensors,
  type Normalization,
  pixelBuffer,
  pixelRoom,
} from "../../models/graph/ops/augment.ts";
import { emitCopy } from "../../models/graph/ops/elementwise.ts";
import { Program } from "../../models/graph/program.ts";
import { type Tensor, tensor } from "../../models/graph/tensor.ts";
import { centralOffset, type CropParameters, CropPlanner, evaluationCrop, plainCrop } from "../../models/image/crop.ts";
import type { Parameters } from "../../models/vit.ts";
import type { Preprocessing } from "../../models/weights/preprocessing.ts";
import { pixelExtremes } from "../crop_feed.ts";
import { cropCapacity } from "../data/multicrop.ts";
import type { PixelSource } from "../data/dataset.ts";
import { prefetch } from "../data/prefetch.ts";
import { frozenFeatures, type LinearFeatureOptions } from "./linear/features.ts";

/** What is extracted, from what, and how. */
export interface FeatureOptions {
  /** Architecture of the network. */
  readonly backbone: BackboneConfig;
  /** Side of the crop in pixels, a multiple of the patch size. */
  readonly cropSize: number;
  /** Colour statistics the network was trained with. */
  readonly normalization: Normalization;
  /** Images of one pass. */
  readonly batch: number;
  /** Every data set that will be read: decides the room for pixels. */
  readonly sources: readonly PixelSource[];
  /** Which features; default [CLS] of the last block. */
  readonly features?: LinearFeatureOptions;
}

/** Chooses the crop of an image. @param image its place in the batch. @param index its place in the source */
export type CropChooser = (image: number, height: number, width: number, index: number) => CropParameters;

/** Shorter side an image gets before its centre is cropped: 256 for a crop of 224, and in proportion. */
export function resizeFor(cropSize: number): number {
  return Math.round(cropSize * 256 / 224);
}

/** The evaluation crop of an image; one that has the crop's size already is taken as it is. */
export function centralCrop(image: number, height: number, width: number, cropSize: number): CropParameters {
  if (height === cropSize && width === cropSize) return plainCrop(image, { top: 0, left: 0, height, width });
  return evaluationCrop(image, height, width, resizeFor(cropSize), cropSize);
}

/**
 * The crop that a network's own preprocessing takes, where it ends in a square of `cropSize`.
 *
 * @throws {RangeError} if an image is smaller than that
 */
export function preparedCrop({ resize, interpolation }: Preprocessing, cropSize: number): CropChooser {
  return (image, height, width) => {
    const box = { top: 0, left: 0, height, width };
    if (resize && "shorterSide" in resize) {
      return evaluationCrop(image, height, width, resize.shorterSide, cropSize, interpolation);
    }
    const { height: rows, width: columns } = resize ?? { height, width };
    if (rows < cropSize || columns < cropSize) {
      throw new RangeError(`an image of ${columns} × ${rows} pixels has no crop of ${cropSize}: enlarge it`);
    }
    const top = centralOffset(rows, cropSize), left = centralOffset(columns, cropSize);
    return { ...plainCrop(image, box, interpolation), resized: { height: rows, width: columns, top, left } };
  };
}

/** A compiled forward pass of one network's backbone. */
export class FeatureExtractor {
  private constructor(
    readonly options: FeatureOptions,
    readonly backend: Backend,
    private readonly executable: Executable,
    private readonly pixels: Tensor,
    private readonly tables: AugmentTensors,
    private readonly planner: CropPlanner,
    private readonly output: Tensor,
  ) {}

  /**
   * Compiles for the backbone whose `parameters` are found by their published names. Where memory lacks, a pass is of fewer images
   * than asked for.
   */
  static async create(backend: Backend, parameters: Parameters, options: FeatureOptions): Promise<FeatureExtractor> {
    const { backbone, cropSize, batch, normalization, features } = options;
    const extremes = pixelExtremes(...options.sources);
    const program = new Program("features");
    const pixels = pixelBuffer(extremes.batchBytes(batch));
    const planner = new CropPlanner(cropCapacity(cropSize, batch, extremes.longestSide));
    const tables = augment(program, pixels, planner.capacity, inputPatch(backbone), normalization);
    const crops = { patches: tables.crops, images: batch, height: cropSize, width: cropSize };
    const made = frozenFeatures(program, parameters, backbone, crops, features);
    const output = tensor("features", made.shape, "output");
    emitCopy(program, made, output);
    try {
      return new FeatureExtractor(options, backend, await backend.compile(program), pixels, tables, planner, output);
    } catch (error) {
      if (!(error instanceof OutOfMemoryError) || batch === 1) throw error;
      return await FeatureExtractor.create(backend, parameters, { ...options, batch: batch >> 1 });
    }
  }

  /**
   * Features of images, in the order of `indices`.
   *
   * @param indices images of the source; all of them when left out
   * @param onImages told how many are done, after every batch
   * @returns [indices, {@linkcode width}], not normalised
   * @throws the signal's reason when it is aborted
   */
  async extract(
    source: PixelSource,
    indices: ArrayLike<number> = Uint32Array.from({ length: source.length }, (_, i) => i),
    signal?: AbortSignal,
    choose: CropChooser = (image, height, width) => centralCrop(image, height, width, this.options.cropSize),
    onImages: (done: number) => void = () => {},
  ): Promise<Float32Array> {
    const { batch } = this.options;
    const width = this.width;
    const features = new Float32Array(indices.length * width);
    let done = 0;
    for await (const pixels of prefetch(source, batchesOf(indices, batch))) {
      signal?.throwIfAborted();
      const { table } = pixels;
      const count = pixels.indices.length;
      // The last batch may be short: its images are cropped again, and the rows they give are left out.
      const crops = Array.from({ length: batch }, (_, i) => {
        const image = i % count;
        return choose(image, table[3 * image + 1], table[3 * image + 2], indices[done + image]);
      });
      const words = this.planner.plan(table, pixelRoom(this.pixels), crops);
      this.backend.write(this.pixels, pixels.pixels);
      this.backend.write(this.tables.table, this.planner.table);
      this.backend.write(this.tables.taps, this.planner.taps.subarray(0, words));
      // Asked for at once: another call of this extractor may come between two awaits.
      const [, rows] = await Promise.all([this.executable.run(), this.backend.read(this.output)]);
      features.set((rows as Float32Array).subarray(0, count * width), done * width);
      done += count;
      onImages(done);
    }
    return features;
  }

  /** Features of one image. */
  get width(): number {
    return this.output.shape[1];
  }

  /** Frees what {@linkcode create} made. */
  dispose(): void {
    this.executable.dispose();
    this.backend.free(this.pixels, this.tables.table, this.tables.taps, this.tables.levels, this.output);
  }
}

/** Indices in batches, of which the last may be short. */
export function* batchesOf(indices: ArrayLike<number>, batch: number): Generator<Uint32Array> {
  for (let start = 0; start < indices.length; start += batch) {
    yield Uint32Array.from({ length: Math.min(batch, indices.length - start) }, (_, i) => indices[start + i]);
  }
}
