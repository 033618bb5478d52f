// Fine-tuning a backbone and a classifier on labelled images, as DeiT is trained: AdamW, layer-wise rates, mixed images.

import {
  backboneBufferShapes,
  type BackboneConfig,
  backboneFeatures,
  backboneShapes,
  droppedBranches,
  inputPatch,
  layerCount,
  layerOf,
} from "../../../models/backbone.ts";
import { Arena, layoutSegments, packSegments } from "../../../models/graph/arena.ts";
import { differentiate } from "../../../models/graph/autodiff.ts";
import type { Backend, Executable } from "../../../models/graph/backend.ts";
import {
  augment,
  type AugmentTensors,
  type Normalization,
  pixelBuffer,
  pixelRoom,
} from "../../../models/graph/ops/augment.ts";
import { batchesTracked } from "../../../models/graph/ops/batch_norm.ts";
import { add, emitCopy, emitScaleRows } from "../../../models/graph/ops/elementwise.ts";
import { linear } from "../../../models/graph/ops/matmul.ts";
import {
  gradientNorms,
  GROUP,
  GROUP_COLUMNS,
  NORM_COLUMNS,
  optimizerUpdate,
  segmentTable,
} from "../../../models/graph/ops/optimizer.ts";
import { Program } from "../../../models/graph/program.ts";
import { type Tensor, tensor } from "../../../models/graph/tensor.ts";
import { type CropParameters, CropPlanner } from "../../../models/image/crop.ts";
import type { Parameters } from "../../../models/vit.ts";
import { batchCountName } from "../../../models/weights/network.ts";
import type { PixelExtremes } from "../../crop_feed.ts";
import { cropCapacity } from "../../data/multicrop.ts";
import type { PixelBatch } from "../../data/dataset.ts";
import { DropPath } from "../../drop_path.ts";
import { cosineAt } from "../../schedule.ts";
import { crossEntropy } from "../cross_entropy.ts";
import { cropExtremes, cropsOnHost, makeCrops } from "./crops.ts";
import { initialWeights } from "../linear/linear.ts";
import { drawMixing, mixedTargets } from "./mixing.ts";

/** Extents and hyperparameters; the defaults are DeiT's, which the paper fine-tunes with. */
export interface FinetuneOptions {
  /** The network. */
  readonly backbone: BackboneConfig;
  /** Of the pixels. */
  readonly normalization: Normalization;
  /** Outputs of the classifier. */
  readonly classes: number;
  /** Side of a crop in pixels. */
  readonly cropSize: number;
  /** Images of an update. */
  readonly batch: number;
  /** Updates of the whole run. */
  readonly steps: number;
  /** Updates of the warm-up. */
  readonly warmup: number;
  /** Peak learning rate of the last layer, already scaled to the batch. */
  readonly lr: number;
  /** Learning rate at the end. */
  readonly minLr?: number;
  /** AdamW's. */
  readonly weightDecay?: number;
  /** Each layer below learns with this share of the rate of the one above. */
  readonly layerDecay?: number;
  /** Stochastic depth of the last block. */
  readonly dropPath?: number;
  /** Images are mixed in pairs with shares from Beta(mixup, mixup); 0 mixes none. */
  readonly mixup?: number;
  /** Or each gets a rectangle of the other, of an area from Beta(cutmix, cutmix); as often as mixup where both are wanted. */
  readonly cutmix?: number;
  /** Magnitude of RandAugment, 0 … 10; 0: none. */
  readonly randAugment?: number;
  /** Probability that a rectangle of an image becomes noise. */
  readonly erasing?: number;
  /** Share that a running average of the parameters keeps at each update; 0: there is none, and the last ones count. */
  readonly averageDecay?: number;
  /** Share of a label spread over all classes. */
  readonly labelSmoothing?: number;
  /** Of the classifier, mixing and depth. */
  readonly seed: number;
}

/** With every default filled in. */
export type FilledFinetuneOptions = Required<FinetuneOptions>;

/** Names of the classifier's parameters. */
const CLASSIFIER = ["classifier.weight", "classifier.bias"] as const;

/** Arenas of a run by what they hold; the same segments in each. */
export interface FinetuneState {
  /** Network and classifier. */
  readonly parameters: Float32Array;
  /** Running statistics of batch norms; empty without them. */
  readonly buffers: Float32Array;
  /** Batches they have seen, by names such as `bn1.num_batches_tracked`. */
  readonly batchCounts: ReadonlyMap<string, number>;
  /** AdamW's first moments. */
  readonly first: Float32Array;
  /** AdamW's second moments. */
  readonly second: Float32Array;
  /** Running average of the parameters; empty where there is none. */
  readonly average: Float32Array;
  /** Updates made. */
  readonly step: number;
}

/** A network that is being fine-tuned. */
export class Finetuner {
  /** Network and classifier. */
  readonly parameters: Arena;
  /** Running statistics of batch norms; empty without them. */
  readonly buffers: Arena;
  readonly #first: Arena;
  readonly #second: Arena;
  readonly #gradients: Arena;
  readonly #average?: Arena;
  readonly #averageDecay = tensor("finetune.averageDecay", [1], "input");
  readonly #groups: Tensor;
  readonly #targets: Tensor;
  readonly #rowWeights: Tensor;
  readonly #shares: [Tensor, Tensor];
  readonly #pixels: Tensor;
  readonly #planner: CropPlanner;
  readonly #dropPath: DropPath;
  readonly #norms: Tensor;
  readonly #losses: Tensor;
  readonly #tables: AugmentTensors[] = [];
  #executable!: Executable;
  #step = 0;
  #batchCounts: ReadonlyMap<string, number> = new Map();
  /** What an update adds to them. */
  #batchesOfUpdate = new Map<string, number>();

  private constructor(readonly backend: Backend, readonly options: FilledFinetuneOptions, extremes: PixelExtremes) {
    const { backbone, classes, batch, cropSize, dropPath, seed } = options;
    const segments = layoutSegments([
      ...backboneShapes(backbone),
      [CLASSIFIER[0], [classes, backbone.embedDim]],
      [CLASSIFIER[1], [classes]],
    ]);
    this.parameters = new Arena("finetune", segments);
    this.buffers = new Arena("finetune.buffer", layoutSegments(backboneBufferShapes(backbone)), "state");
    this.#first = new Arena("finetune.first", segments, "state");
    this.#second = new Arena("finetune.second", segments, "state");
    this.#gradients = new Arena("finetune.gradient", segments, "state");
    if (options.averageDecay > 0) this.#average = new Arena("finetune.average", segments);
    this.#norms = tensor("finetune.norms", [segments.length, NORM_COLUMNS], "state");
    this.#groups = tensor("finetune.groups", [2 * (layerCount(backbone) + 2), GROUP_COLUMNS], "input");
    this.#targets = tensor("finetune.targets", [batch, classes], "input");
    this.#rowWeights = tensor("finetune.rows", [batch], "input");
    this.#shares = [tensor("mixup.own", [batch], "input"), tensor("mixup.other", [batch], "input")];
    this.#losses = tensor("finetune.losses", [2 * batch], "output");
    this.#pixels = pixelBuffer(extremes.batchBytes(batch));
    this.#planner = new CropPlanner(cropCapacity(cropSize, batch, extremes.longestSide));
    const { probabilities, branches } = droppedBranches(backbone, dropPath);
    this.#dropPath = new DropPath(probabilities, branches, [{ firstView: 0, views: 1 }], batch, seed);
  }

  /**
   * Compiles an update and writes the weights to start from; the classifier starts small and random.
   *
   * @param weights of the backbone, by their published names
   * @param batchCounts what its running statistics have seen, by names such as `backbone.bn1.num_batches_tracked`
   * @throws {RangeError} if a hyperparameter makes no sense
   */
  static async create(
    backend: Backend,
    options: FinetuneOptions,
    extremes: PixelExtremes,
    weights: (name: string) => Float32Array,
    batchCounts: ReadonlyMap<string, number> = new Map(),
  ): Promise<Finetuner> {
    const full: FilledFinetuneOptions = {
      minLr: 1e-6,
      weightDecay: 0.05,
      layerDecay: 1,
      dropPath: 0.1,
      mixup: 0.8,
      cutmix: 1,
      randAugment: 9,
      erasing: 0.25,
      averageDecay: 0,
      labelSmoothing: 0.1,
      ...options,
    };
    if (!(full.layerDecay > 0 && full.layerDecay <= 1)) {
      throw new RangeError(`finetune: layerDecay ${full.layerDecay} is not above 0 and at most 1`);
    }
    if (!(full.labelSmoothing >= 0 && full.labelSmoothing < 1)) {
      throw new RangeError(`finetune: labelSmoothing ${full.labelSmoothing} is not at least 0 and below 1`);
    }
    if (!(full.averageDecay >= 0 && full.averageDecay < 1)) {
      throw new RangeError(`finetune: averageDecay ${full.averageDecay} is not at least 0 and below 1`);
    }
    const tuner = new Finetuner(backend, full, cropsOnHost(full) ? cropExtremes(full.cropSize) : extremes);
    const program = tuner.#program();
    tuner.#executable = await backend.compile(program);
    for (const [name, mean] of tuner.buffers.tensors) {
      if (name.endsWith(".running_mean")) {
        tuner.#batchesOfUpdate.set(batchCountName(name), batchesTracked(program, mean));
      }
    }
    tuner.#batchCounts = tuner.#counted((name) => batchCounts.get(`backbone.${name}`), 0);
    const head = initialWeights(full.classes, full.backbone.embedDim, full.seed);
    const start = packSegments(tuner.parameters.segments, ({ name }) => {
      return name === CLASSIFIER[0] ? head.weight : name === CLASSIFIER[1] ? head.bias : weights(name);
    });
    backend.write(tuner.parameters.flat, start);
    tuner.#writeAverage(start);
    tuner.#writeBuffers(packSegments(tuner.buffers.segments, ({ name }) => weights(name)));
    return tuner;
  }

  /** Parameters of the backbone that count, for evaluation on the same backend: the average where there is one. */
  get backbone(): Parameters {
    const arena = this.#average ?? this.parameters;
    return (name) => this.buffers.tensors.get(name) ?? arena.get(name);
  }

  /** Updates made so far. */
  get step(): number {
    return this.#step;
  }

  /**
   * One update.
   *
   * @param pixels of `batch` images
   * @param crops of those images, one each
   * @param labels of the first images; a shorter last batch is filled up with images that count for nothing
   */
  async update(pixels: PixelBatch, crops: CropParameters[], labels: ArrayLike<number>): Promise<void> {
    const { batch, classes, cropSize, mixup, labelSmoothing, seed } = this.options;
    const n = labels.length;
    const { own, box } = drawMixing(this.options, cropSize, seed, this.#step);
    if (cropsOnHost(this.options)) {
      ({ batch: pixels, crops } = makeCrops(this.options, pixels, crops, n, this.#step, box));
    }
    const targets = mixedTargets(labels, batch, classes, own, labelSmoothing);
    const rowWeights = new Float32Array(batch).fill(1 / n, 0, n);
    const { backend } = this;
    backend.write(this.#pixels, pixels.pixels);
    for (const [i, tables] of this.#tables.entries()) {
      const these = i === 0 ? crops : crops.map((crop, at) => at < n ? crops[n - 1 - at] : crop);
      const words = this.#planner.plan(pixels.table, pixelRoom(this.#pixels), these);
      backend.write(tables.table, this.#planner.table.slice());
      backend.write(tables.taps, this.#planner.taps.slice(0, words));
    }
    if (mixup > 0) {
      const kept = box ? 1 : own; // a rectangle is in the pixels already
      backend.write(this.#shares[0], new Float32Array(batch).fill(kept));
      backend.write(this.#shares[1], new Float32Array(batch).fill(1 - kept));
    }
    backend.write(this.#targets, targets);
    backend.write(this.#rowWeights, rowWeights);
    backend.write(this.#groups, this.#groupTable());
    this.#dropPath.write(backend, this.#step, 0);
    await this.#executable.run();
    this.#step++;
    this.#batchCounts = this.#counted((name) => this.#batchCounts.get(name), 1);
  }

  /** Mean loss of the last update's batch. @param n images of it */
  async loss(n: number): Promise<number> {
    const rows = await this.backend.read(this.#losses) as Float32Array;
    const { batch } = this.options;
    return rows.subarray(batch, batch + n).reduce((a, b) => a + b, 0) / n;
  }

  /** Everything that a resumed run needs. */
  async state(): Promise<FinetuneState> {
    const read = async (arena: Arena) =>
      arena.segments.length > 0 ? (await this.backend.read(arena.flat) as Float32Array).slice() : new Float32Array();
    return {
      parameters: await read(this.parameters),
      buffers: await read(this.buffers),
      batchCounts: this.#batchCounts,
      first: await read(this.#first),
      second: await read(this.#second),
      average: this.#average ? await read(this.#average) : new Float32Array(),
      step: this.#step,
    };
  }

  /** Puts back what {@linkcode state} gave. */
  restore({ parameters, buffers, batchCounts, first, second, average, step }: FinetuneState): void {
    this.backend.write(this.parameters.flat, parameters);
    this.#writeBuffers(buffers);
    this.#writeAverage(average);
    this.backend.write(this.#first.flat, first);
    this.backend.write(this.#second.flat, second);
    this.#step = step;
    this.#batchCounts = batchCounts;
  }

  #counted(before: (name: string) => number | undefined, updates: number): ReadonlyMap<string, number> {
    return new Map([...this.#batchesOfUpdate].map(([name, n]) => [name, (before(name) ?? 0) + updates * n]));
  }

  /** Frees everything. */
  dispose(): void {
    this.#executable.dispose();
    const arenas = [this.parameters, this.buffers, this.#first, this.#second, this.#gradients].map(({ flat }) => flat);
    const tables = this.#tables.flatMap(({ table, taps, levels }) => [table, taps, levels]);
    this.backend.free(...arenas, this.#norms, this.#groups, this.#targets, this.#rowWeights, this.#losses);
    this.backend.free(this.#pixels, ...this.#shares, ...tables, this.#averageDecay);
    if (this.#average) this.backend.free(this.#average.flat);
  }

  #writeAverage(values: Float32Array): void {
    if (!this.#average) return;
    this.backend.write(this.#average.flat, values);
    this.backend.write(this.#averageDecay, Float32Array.of(this.options.averageDecay));
  }

  #writeBuffers(values: Float32Array): void {
    if (values.length > 0) this.backend.write(this.buffers.flat, values);
  }

  #program(): Program {
    const { backbone, batch, cropSize, normalization, mixup } = this.options;
    const p = new Program("finetune step");
    const crops = () => {
      const made = augment(p, this.#pixels, this.#planner.capacity, inputPatch(backbone), normalization);
      this.#tables.push(made);
      return made.crops; // [batch · patches, 3 · p · p], the rows of an image side by side
    };
    let patches = crops();
    if (mixup > 0) {
      const [own, other] = this.#shares;
      patches = add(p, emitScaleRows(p, patches, own), emitScaleRows(p, crops(), other));
    }
    const lookUp: Parameters = (name) => this.buffers.tensors.get(name) ?? this.parameters.get(name);
    const group = {
      patches,
      images: batch,
      height: cropSize,
      width: cropSize,
      dropPath: (block: number, branch: number) => this.#dropPath.factors(0, block, branch),
    };
    const features = backboneFeatures(p, lookUp, backbone, [group], { training: true });
    const logits = linear(p, features, lookUp(CLASSIFIER[0]), lookUp(CLASSIFIER[1]));
    const { losses, dlogits } = crossEntropy(p, logits, this.#targets, this.#rowWeights);
    emitCopy(p, losses, this.#losses);
    const { segments } = this.parameters;
    differentiate(p, {
      seeds: [[logits, dlogits]],
      wrt: segments.map(({ name }) => [lookUp(name), this.#gradients.get(name)] as const),
    });
    const table = segmentTable(segments, ({ name, shape }) => {
      const decays = shape.length > 1 && name !== "cls_token" && name !== "pos_embed";
      return 2 * layerOf(backbone, name) + (decays ? 0 : 1);
    });
    const param = this.parameters.flat, grad = this.#gradients.flat;
    gradientNorms(p, grad, param, table, this.#norms);
    optimizerUpdate(p, {
      param,
      grad,
      first: this.#first.flat,
      second: this.#second.flat,
      norms: this.#norms,
      groups: this.#groups,
      segments: table,
      ...this.#average && { teacher: this.#average.flat, teacherMomentum: this.#averageDecay },
    }, { method: "adamw" });
    return p;
  }

  #groupTable(): Float32Array {
    const { backbone, lr, minLr, steps, warmup, weightDecay, layerDecay } = this.options;
    const rate = cosineAt(this.#step, { base: lr, final: minLr, total: steps, warmup });
    const layers = layerCount(backbone) + 2;
    const table = new Float32Array(2 * layers * GROUP_COLUMNS);
    for (let group = 0; group < 2 * layers; group++) {
      const row = table.subarray(group * GROUP_COLUMNS, (group + 1) * GROUP_COLUMNS);
      row[GROUP.lr] = rate * layerDecay ** (layers - 1 - Math.floor(group / 2));
      row[GROUP.weightDecay] = group % 2 === 0 ? weightDecay : 0;
      row[GROUP.biasCorrection1] = 1 - 0.9 ** (this.#step + 1);
      row[GROUP.biasCorrection2] = 1 - 0.999 ** (this.#step + 1);
      row[GROUP.active] = 1;
    }
    return table;
  }
}
