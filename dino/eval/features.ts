// Features of whole data sets: every image resized, cropped at its centre, and passed through a frozen backbone.

import type { Backend, Executable } from "../../models/graph/backend.ts";
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
import { type CropParameters, CropPlanner, evaluationCrop, plainCrop } from "../../models/image/crop.ts";
import { finalNorm, type Parameters, vit, type VitConfig } from "../../models/vit.ts";
import { pixelExtremes } from "../crop_feed.ts";
import { cropCapacity } from "../data/multicrop.ts";
import type { PixelSource } from "../data/dataset.ts";
import { prefetch } from "../data/prefetch.ts";

/** What is extracted, from what, and how. */
export interface FeatureOptions {
  readonly backbone: VitConfig;
  /** Side of the crop in pixels, a multiple of the patch size. */
  readonly cropSize: number;
  readonly normalization: Normalization;
  /** Images of one pass. */
  readonly batch: number;
  /** Every data set that will be read: decides the room for pixels. */
  readonly sources: readonly PixelSource[];
}

/** Shorter side an image gets before its centre is cropped: 256 for a crop of 224, and in proportion. */
export function resizeFor(cropSize: number): number {
  return Math.round(cropSize * 256 / 224);
}

/** The evaluation crop of an image; one that has the crop's size already is taken as it is. */
export function centralCrop(image: number, height: number, width: number, cropSize: number): CropParameters {
  if (height === cropSize && width === cropSize) return plainCrop(image, { top: 0, left: 0, height, width });
  return evaluationCrop(image, height, width, resizeFor(cropSize), cropSize);
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

  /** @param parameters of the backbone, by their published names */
  static async create(backend: Backend, parameters: Parameters, options: FeatureOptions): Promise<FeatureExtractor> {
    const { backbone, cropSize, batch, normalization } = options;
    const extremes = pixelExtremes(...options.sources);
    const program = new Program("features");
    const pixels = pixelBuffer(extremes.batchBytes(batch));
    const planner = new CropPlanner(cropCapacity(cropSize, batch, extremes.longestSide));
    const tables = augment(program, pixels, planner.capacity, backbone.patchSize, normalization);
    const crops = { patches: tables.crops, images: batch, height: cropSize, width: cropSize };
    const { blocks } = vit(program, parameters, backbone, crops, { clsOnly: true });
    const cls = finalNorm(program, parameters, backbone, blocks.at(-1)!); // [batch, D]
    const output = tensor("features", cls.shape, "output");
    emitCopy(program, cls, output);
    return new FeatureExtractor(options, backend, await backend.compile(program), pixels, tables, planner, output);
  }

  /**
   * Features of images, in the order of `indices`.
   *
   * @param indices images of the source; all of them when left out
   * @returns [indices, D], not normalised
   * @throws the signal's reason when it is aborted
   */
  async extract(
    source: PixelSource,
    indices: ArrayLike<number> = Uint32Array.from({ length: source.length }, (_, i) => i),
    signal?: AbortSignal,
  ): Promise<Float32Array> {
    const { batch, backbone, cropSize } = this.options;
    const features = new Float32Array(indices.length * backbone.embedDim);
    let done = 0;
    for await (const pixels of prefetch(source, fullBatches(indices, batch))) {
      signal?.throwIfAborted();
      const { table } = pixels;
      const crops = Array.from(
        { length: batch },
        (_, i) => centralCrop(i, table[3 * i + 1], table[3 * i + 2], cropSize),
      );
      const words = this.planner.plan(table, pixelRoom(this.pixels), crops);
      this.backend.write(this.pixels, pixels.pixels);
      this.backend.write(this.tables.table, this.planner.table);
      this.backend.write(this.tables.taps, this.planner.taps.subarray(0, words));
      await this.executable.run();
      const rows = await this.backend.read(this.output) as Float32Array;
      const count = Math.min(batch, indices.length - done);
      features.set(rows.subarray(0, count * backbone.embedDim), done * backbone.embedDim);
      done += count;
    }
    return features;
  }

  /** Frees what {@linkcode create} made. */
  dispose(): void {
    this.executable.dispose();
    this.backend.free(this.pixels, this.tables.table, this.tables.taps, this.tables.levels, this.output);
  }
}

/** Batches of one size; the last one is filled up with its own last image. */
export function* fullBatches(indices: ArrayLike<number>, batch: number): Generator<Uint32Array> {
  for (let start = 0; start < indices.length; start += batch) {
    yield Uint32Array.from({ length: batch }, (_, i) => indices[Math.min(start + i, indices.length - 1)]);
  }
}
