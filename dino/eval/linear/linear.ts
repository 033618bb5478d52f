// Linear classifiers on frozen features: several learning rates trained side by side on the same batches.

import { Arena, layoutSegments, packSegments } from "../../../models/graph/arena.ts";
import { differentiate } from "../../../models/graph/autodiff.ts";
import type { Backend, Executable } from "../../../models/graph/backend.ts";
import { emitCopy } from "../../../models/graph/ops/elementwise.ts";
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
import { CounterRandom, STREAM } from "../../../models/rng.ts";
import { crossEntropy } from "../cross_entropy.ts";

/** Extents and hyperparameters of a probe; the defaults are the reference's. */
export interface LinearProbeOptions {
  /** Features of an image. */
  readonly dim: number;
  /** Outputs of a classifier. */
  readonly classes: number;
  /** Images of a training step; a shorter last batch is handled. */
  readonly batch: number;
  /** Learning rate of each classifier at its first epoch, already scaled by batch / 256. */
  readonly learningRates: readonly number[];
  /** Passes over the data, which the cosine spans. */
  readonly epochs: number;
  /** SGD's momentum. */
  readonly momentum?: number;
  /** SGD's. */
  readonly weightDecay?: number;
}

/** Weights of one classifier: logits = features · weightᵀ + bias. */
export interface LinearWeights {
  /** [classes, dim] */
  readonly weight: Float32Array;
  /** [classes] */
  readonly bias: Float32Array;
}

/** Learning rate of an epoch: half a cosine from `base` at epoch 0 to 0 at `epochs`, constant within the epoch. */
export function probeLearningRate(base: number, epoch: number, epochs: number): number {
  return 0.5 * base * (1 + Math.cos(Math.PI * epoch / epochs));
}

/**
 * Classifiers that learn from the same batches, one for each learning rate.
 *
 * @example Two classes along the axes
 * ```ts
 * import { LinearProbe, linearLogits, openWasm, scoreLogits } from "../../../mod.ts";
 *
 * const features = Float32Array.of(1, 0, 0, 1, 0.8, 0.1, 0.2, 0.9), labels = Int32Array.of(0, 1, 0, 1);
 * const backend = await openWasm({ threads: 1 });
 * const probe = await LinearProbe.create(backend, { dim: 2, classes: 2, batch: 4, epochs: 20, learningRates: [0.5] });
 * for (let epoch = 0; epoch < 20; epoch++) await probe.step(features, labels, epoch);
 * const [{ weight, bias }] = await probe.weights();
 * console.log(scoreLogits(linearLogits(features, weight, bias), labels, 2, 4).top1); // 100
 * await probe.dispose();
 * await backend.close();
 * ```
 */
export class LinearProbe {
  /** Rows of features that a step reads; a network on the same backend may write them itself. */
  readonly features: Tensor;
  readonly #targets: Tensor;
  readonly #rowWeights: Tensor;
  readonly #groups: Tensor;
  readonly #losses: Tensor[] = [];
  readonly #logits: Tensor[] = [];
  readonly #train: Promise<Executable>;
  readonly #evaluate: Promise<Executable>;
  readonly #weights: Arena;
  readonly #momenta: Arena;
  readonly #gradients: Arena;
  readonly #norms: Tensor;
  readonly #scratch: { targets: Float32Array; rowWeights: Float32Array; groups: Float32Array };
  #steps = 0;

  private constructor(readonly backend: Backend, readonly options: Required<LinearProbeOptions>) {
    const { dim, classes, batch, learningRates } = options;
    const segments = layoutSegments(
      learningRates.flatMap((_, i) =>
        [
          [`${i}.weight`, [classes, dim]],
          [`${i}.bias`, [classes]],
        ] as [string, number[]][]
      ),
    );
    this.#weights = new Arena("linear", segments);
    this.#momenta = new Arena("linear.momentum", segments, "state");
    this.#gradients = new Arena("linear.gradient", segments, "state");
    this.#norms = tensor("linear.norms", [segments.length, NORM_COLUMNS], "state");
    this.features = tensor("linear.features", [batch, dim], "input");
    this.#targets = tensor("linear.targets", [batch, classes], "input");
    this.#rowWeights = tensor("linear.rows", [batch], "input");
    this.#groups = tensor("linear.groups", [learningRates.length, GROUP_COLUMNS], "input");
    this.#scratch = {
      targets: new Float32Array(batch * classes),
      rowWeights: new Float32Array(batch),
      groups: new Float32Array(learningRates.length * GROUP_COLUMNS),
    };
    this.#train = backend.compile(this.#trainProgram());
    this.#evaluate = backend.compile(this.#evaluationProgram());
  }

  /**
   * Compiles a probe whose classifiers start from weights drawn from N(0, 0.01) and biases of 0, the same for every rate.
   *
   * @throws {RangeError} if an extent or a rate is not positive
   */
  static async create(backend: Backend, options: LinearProbeOptions, seed = 0): Promise<LinearProbe> {
    const full = { momentum: 0.9, weightDecay: 0, ...options };
    for (const name of ["dim", "classes", "batch", "epochs"] as const) {
      if (!(Number.isInteger(full[name]) && full[name] > 0)) {
        throw new RangeError(`linear: ${name} is ${full[name]}: use a whole number above 0`);
      }
    }
    if (full.learningRates.length === 0 || full.learningRates.some((lr) => !(lr >= 0 && Number.isFinite(lr)))) {
      throw new RangeError(`linear: learning rates [${full.learningRates}]: name at least one, none below 0`);
    }
    const probe = new LinearProbe(backend, full);
    await Promise.all([probe.#train, probe.#evaluate]);
    probe.setWeights(full.learningRates.map(() => initialWeights(full.classes, full.dim, seed)));
    return probe;
  }

  /** Writes the weights of every classifier and forgets momenta. */
  setWeights(weights: readonly LinearWeights[]): void {
    this.#write(this.#weights, weights);
    this.backend.write(this.#momenta.flat, new Float32Array(this.#momenta.flat.shape[0]));
    this.#steps = 0;
  }

  /** Puts back what {@linkcode momenta} and {@linkcode weights} gave, after `steps` updates. */
  restore(weights: readonly LinearWeights[], momenta: readonly LinearWeights[], steps: number): void {
    this.#write(this.#weights, weights);
    this.#write(this.#momenta, momenta);
    this.#steps = steps;
  }

  /** Updates made so far. */
  get steps(): number {
    return this.#steps;
  }

  /** Weights of every classifier now. */
  weights(): Promise<LinearWeights[]> {
    return this.#read(this.#weights);
  }

  /** SGD's momentum buffers. */
  momenta(): Promise<LinearWeights[]> {
    return this.#read(this.#momenta);
  }

  /**
   * One update of every classifier.
   *
   * @param features [n ≤ batch, dim], or undefined if a program on this backend has written `this.features`
   * @param labels [n]
   * @throws {RangeError} if there are too many rows, or a label is not a class
   */
  async step(features: Float32Array | undefined, labels: ArrayLike<number>, epoch: number): Promise<void> {
    const { batch, classes, dim, learningRates, epochs, weightDecay } = this.options;
    const n = labels.length;
    if (!(n >= 1 && n <= batch)) throw new RangeError(`linear: ${n} labels for a batch of ${batch}`);
    const { targets, rowWeights, groups } = this.#scratch;
    if (features) {
      if (features.length !== n * dim) throw new RangeError(`linear: ${features.length} features for ${n} × ${dim}`);
      this.backend.write(this.features, features, 0);
    }
    targets.fill(0);
    rowWeights.fill(0);
    for (let i = 0; i < n; i++) {
      if (!(labels[i] >= 0 && labels[i] < classes)) throw new RangeError(`linear: label ${labels[i]} of ${classes}`);
      targets[i * classes + labels[i]] = 1;
      rowWeights[i] = 1 / n;
    }
    learningRates.forEach((base, i) => {
      const row = groups.subarray(i * GROUP_COLUMNS, (i + 1) * GROUP_COLUMNS);
      row[GROUP.lr] = probeLearningRate(base, epoch, epochs);
      row[GROUP.weightDecay] = weightDecay;
      row[GROUP.active] = 1;
      row[GROUP.first] = this.#steps === 0 ? 1 : 0;
    });
    this.backend.write(this.#targets, targets);
    this.backend.write(this.#rowWeights, rowWeights);
    this.backend.write(this.#groups, groups);
    await (await this.#train).run();
    this.#steps++;
  }

  /**
   * Mean cross-entropy of the last step's batch for each classifier, before the update.
   *
   * @param n images of that batch
   */
  async losses(n: number = this.options.batch): Promise<number[]> {
    const { batch } = this.options;
    return await Promise.all(this.#losses.map(async (t) => {
      const rows = await this.backend.read(t) as Float32Array;
      return rows.subarray(batch, batch + n).reduce((a, b) => a + b, 0) / n;
    }));
  }

  /**
   * Logits of each classifier, [n, classes] each.
   *
   * @param features [n, dim], any n
   */
  async logits(features: Float32Array): Promise<Float32Array[]> {
    const { batch, classes, dim } = this.options;
    const n = features.length / dim;
    const logits = this.#logits.map(() => new Float32Array(n * classes));
    for (let start = 0; start < n; start += batch) {
      const count = Math.min(batch, n - start);
      this.backend.write(this.features, features.subarray(start * dim, (start + count) * dim), 0);
      await (await this.#evaluate).run();
      for (const [i, t] of this.#logits.entries()) {
        const rows = await this.backend.read(t) as Float32Array;
        logits[i].set(rows.subarray(0, count * classes), start * classes);
      }
    }
    return logits;
  }

  /** Frees everything. */
  async dispose(): Promise<void> {
    for (const executable of await Promise.all([this.#train, this.#evaluate])) executable.dispose();
    this.backend.free(
      this.features,
      this.#targets,
      this.#rowWeights,
      this.#groups,
      this.#norms,
      this.#weights.flat,
      this.#momenta.flat,
      this.#gradients.flat,
      ...this.#losses,
      ...this.#logits,
    );
  }

  #trainProgram(): Program {
    const { batch, learningRates, momentum } = this.options;
    const p = new Program("linear probe step");
    for (const i of learningRates.keys()) {
      const weight = this.#weights.get(`${i}.weight`), bias = this.#weights.get(`${i}.bias`);
      const logits = linear(p, this.features, weight, bias); // [batch, classes]
      const { losses: rowLosses, dlogits } = crossEntropy(p, logits, this.#targets, this.#rowWeights);
      const losses = tensor(`linear.losses${i}`, [2 * batch], "output");
      emitCopy(p, rowLosses, losses);
      this.#losses.push(losses);
      differentiate(p, {
        seeds: [[logits, dlogits]],
        wrt: [
          [weight, this.#gradients.get(`${i}.weight`)],
          [bias, this.#gradients.get(`${i}.bias`)],
        ],
      });
    }
    const segments = segmentTable(this.#weights.segments, (s) => parseInt(s.name));
    const param = this.#weights.flat, grad = this.#gradients.flat, first = this.#momenta.flat;
    gradientNorms(p, grad, param, segments, this.#norms);
    const slots = { param, grad, first, norms: this.#norms, groups: this.#groups, segments };
    optimizerUpdate(p, slots, { method: "sgd", momentum });
    return p;
  }

  #evaluationProgram(): Program {
    const { batch, classes, learningRates } = this.options;
    const p = new Program("linear probe logits");
    for (const i of learningRates.keys()) {
      const out = tensor(`linear.logits${i}`, [batch, classes], "output");
      emitCopy(p, linear(p, this.features, this.#weights.get(`${i}.weight`), this.#weights.get(`${i}.bias`)), out);
      this.#logits.push(out);
    }
    return p;
  }

  #write(arena: Arena, values: readonly LinearWeights[]): void {
    const packed = packSegments(arena.segments, ({ name }) => {
      const one = values[parseInt(name)];
      return name.endsWith("weight") ? one.weight : one.bias;
    });
    this.backend.write(arena.flat, packed);
  }

  async #read(arena: Arena): Promise<LinearWeights[]> {
    const flat = await this.backend.read(arena.flat) as Float32Array;
    const part = (name: string) => {
      const { offset, length } = arena.segments.find((s) => s.name === name)!;
      return flat.slice(offset, offset + length);
    };
    return this.options.learningRates.map((_, i) => ({ weight: part(`${i}.weight`), bias: part(`${i}.bias`) }));
  }
}

/** Weights from N(0, 0.01), biases 0, as the reference starts. */
export function initialWeights(classes: number, dim: number, seed: number): LinearWeights {
  const random = new CounterRandom(seed, STREAM.initialization);
  const weight = Float32Array.from({ length: classes * dim }, () => 0.01 * random.normal());
  return { weight, bias: new Float32Array(classes) };
}
