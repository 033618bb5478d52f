// k-NN of networks and of plain pixels on a split, with everything compiled once for many evaluations.

import type { Backend } from "../../../models/graph/backend.ts";
import { augmentToLevels, type Normalization, pixelBuffer, pixelRoom } from "../../../models/graph/ops/augment.ts";
import { Program } from "../../../models/graph/program.ts";
import { CropPlanner } from "../../../models/image/crop.ts";
import type { BackboneConfig } from "../../../models/backbone.ts";
import type { Parameters } from "../../../models/vit.ts";
import { pixelExtremes } from "../../crop_feed.ts";
import { cropCapacity } from "../../data/multicrop.ts";
import { prefetch } from "../../data/prefetch.ts";
import { deviceSearch } from "./device_neighbours.ts";
import { batchesOf, centralCrop, FeatureExtractor } from "../features.ts";
import { evaluateKnn, type KnnResult, type LabelledFeatures } from "./knn.ts";
import type { EvaluationSplit, LabelledImages } from "./splits.ts";

/** How networks are evaluated. */
export interface KnnEvaluationOptions {
  /** Architecture of the networks. */
  readonly backbone: BackboneConfig;
  /** Side of the central crop in pixels. */
  readonly cropSize: number;
  /** Colour statistics the networks were trained with. */
  readonly normalization: Normalization;
  /** Images of one pass. */
  readonly batch: number;
  /** Neighbours to try. */
  readonly ks: readonly number[];
  /** A neighbour of similarity s votes with exp(s / temperature). */
  readonly temperature: number;
}

/** Told how many of all images are done. */
export type ImagesDone = (done: number, total: number) => void;

/** Evaluates networks of one architecture on one split. */
export class KnnEvaluation {
  readonly #extractors = new Map<string, FeatureExtractor>();

  /** Compiles nothing yet. */
  constructor(readonly backend: Backend, readonly split: EvaluationSplit, readonly options: KnnEvaluationOptions) {}

  /**
   * Accuracies with the parameters as they are on the device now.
   *
   * @param parameters of the backbone, by their published names
   * @param network a name under which the compiled network is kept for the next time
   * @param onImages told how many images have features, of both sides
   */
  async run(
    parameters: Parameters,
    network: string,
    signal?: AbortSignal,
    onImages?: ImagesDone,
  ): Promise<KnnResult> {
    const { train, test } = this.split;
    let extractor = this.#extractors.get(network);
    if (!extractor) {
      const sources = [...new Set([train.source, test.source])];
      extractor = await FeatureExtractor.create(this.backend, parameters, { ...this.options, sources });
      this.#extractors.set(network, extractor);
    }
    const features = async ({ source, indices, labels }: LabelledImages, before: number) => ({
      features: await extractor.extract(source, indices, signal, undefined, this.#counting(before, onImages)),
      labels,
      dim: this.options.backbone.embedDim,
    });
    return await this.#vote(await features(train, 0), await features(test, train.indices.length));
  }

  /** Accuracies of the pixels themselves, cropped as for a network; large images are made small first. */
  async runPixels(signal?: AbortSignal, onImages?: ImagesDone): Promise<KnnResult> {
    const { train, test } = this.split;
    const side = Math.min(this.options.cropSize, PIXEL_SIDE);
    const features = (images: LabelledImages, before: number) =>
      pixelFeatures(this.backend, images, side, signal, this.#counting(before, onImages));
    return await this.#vote(await features(train, 0), await features(test, train.indices.length));
  }

  /** Counts on after the images of the other side. */
  #counting(before: number, onImages: ImagesDone = () => {}): (done: number) => void {
    const { train, test } = this.split, total = train.indices.length + test.indices.length;
    return (done) => onImages(before + done, total);
  }

  async #vote(train: LabelledFeatures, test: LabelledFeatures): Promise<KnnResult> {
    const { ks, temperature } = this.options;
    return await evaluateKnn(train, test, { ks, temperature, search: deviceSearch(this.backend) });
  }

  /** Frees the compiled networks. */
  dispose(): void {
    for (const extractor of this.#extractors.values()) extractor.dispose();
    this.#extractors.clear();
  }
}

/** Side at which plain pixels are compared: about the size of the images on which that is a serious baseline. */
export const PIXEL_SIDE = 32;

async function pixelFeatures(
  backend: Backend,
  { source, indices, labels }: LabelledImages,
  side: number,
  signal: AbortSignal | undefined,
  onImages: (done: number) => void,
) {
  const batch = Math.min(64, indices.length);
  const extremes = pixelExtremes(source);
  const planner = new CropPlanner(cropCapacity(side, batch, extremes.longestSide));
  const pixels = pixelBuffer(extremes.batchBytes(batch));
  const program = new Program("pixels");
  const made = augmentToLevels(program, pixels, planner.capacity);
  const executable = await backend.compile(program);
  const dim = side * side * 3;
  const features = new Float32Array(indices.length * dim);
  let done = 0;
  for await (const read of prefetch(source, batchesOf(indices, batch))) {
    signal?.throwIfAborted();
    const { table } = read;
    const count = read.indices.length;
    const crops = Array.from({ length: batch }, (_, i) => {
      const image = i % count; // a short batch is filled up with its own images
      return centralCrop(image, table[3 * image + 1], table[3 * image + 2], side);
    });
    const words = planner.plan(table, pixelRoom(pixels), crops);
    backend.write(pixels, read.pixels);
    backend.write(made.table, planner.table);
    backend.write(made.taps, planner.taps.subarray(0, words));
    await executable.run();
    const levels = await backend.read(made.crops) as Float32Array;
    features.set(levels.subarray(0, count * dim), done * dim);
    done += count;
    onImages(done);
  }
  executable.dispose();
  backend.free(pixels, made.table, made.taps, made.levels, made.crops);
  return { features, labels, dim };
}
