// Multinomial logistic regression on frozen features: L-BFGS on the host, losses and gradients on a device.

import type { Backend, Executable } from "../../../models/graph/backend.ts";
import { differentiate } from "../../../models/graph/autodiff.ts";
import { emitCopy } from "../../../models/graph/ops/elementwise.ts";
import { linear } from "../../../models/graph/ops/matmul.ts";
import { Program } from "../../../models/graph/program.ts";
import { type Tensor, tensor } from "../../../models/graph/tensor.ts";
import { crossEntropy } from "../cross_entropy.ts";
import { minimize } from "./lbfgs.ts";

/** Features and classes to learn from. */
export interface LogisticData {
  /** [n, dim] */
  readonly features: Float32Array;
  /** [n], 0 … classes − 1 */
  readonly labels: ArrayLike<number>;
  /** Features of an image. */
  readonly dim: number;
  /** Outputs of the classifier. */
  readonly classes: number;
}

/** Rows of one pass. */
const CHUNK = 1024;

/** A classifier: logits = features · weightᵀ + bias. */
export class LogisticRegression {
  readonly #x: Tensor;
  readonly #targets: Tensor;
  readonly #rowWeights: Tensor;
  readonly #weight: Tensor;
  readonly #bias: Tensor;
  readonly #dweight: Tensor;
  readonly #dbias: Tensor;
  readonly #losses: Tensor;
  readonly #logits: Tensor;
  readonly #chunk: number;
  #executable!: Executable;
  #forward!: Executable;

  private constructor(readonly backend: Backend, readonly dim: number, readonly classes: number, rows: number) {
    this.#chunk = Math.min(CHUNK, rows);
    this.#x = tensor("features", [this.#chunk, dim], "input");
    this.#targets = tensor("targets", [this.#chunk, classes], "input");
    this.#rowWeights = tensor("row weights", [this.#chunk], "input");
    this.#weight = tensor("weight", [classes, dim], "param");
    this.#bias = tensor("bias", [classes], "param");
    this.#dweight = tensor("d(weight)", [classes, dim], "output");
    this.#dbias = tensor("d(bias)", [classes], "output");
    this.#losses = tensor("losses", [2 * this.#chunk], "output");
    this.#logits = tensor("logits", [this.#chunk, classes], "output");
  }

  /**
   * Fits weights that minimise the mean cross-entropy + `penalty` / 2 · ‖weight‖². Features are scaled as they come:
   * scale them to length 1, or standardise them, before.
   *
   * @param penalty at least 0; with 0 separable data has no minimum, and fitting stops after `iterations`
   */
  static async fit(
    backend: Backend,
    data: LogisticData,
    { penalty, iterations = 200, onIteration }: {
      penalty: number;
      iterations?: number;
      onIteration?: (iteration: number, loss: number) => void;
    },
  ): Promise<LogisticRegression> {
    const { features, labels, dim, classes } = data;
    if (labels.length === 0 || features.length !== labels.length * dim) {
      throw new RangeError(`logistic: ${features.length} features for ${labels.length} images of ${dim}`);
    }
    const model = new LogisticRegression(backend, dim, classes, labels.length);
    await model.#compile();
    const start = new Float64Array(classes * dim + classes);
    const { x } = await minimize(start, (at) => model.#lossAndGradient(at, data, penalty), { iterations, onIteration });
    model.#setWeights(x);
    return model;
  }

  /** Logits [n, classes] of features [n, dim]. */
  async logits(features: Float32Array): Promise<Float32Array> {
    const { dim, classes } = this;
    const n = features.length / dim;
    const logits = new Float32Array(n * classes);
    for (let start = 0; start < n; start += this.#chunk) {
      const count = Math.min(this.#chunk, n - start);
      this.backend.write(this.#x, features.subarray(start * dim, (start + count) * dim), 0);
      await this.#forward.run();
      const rows = await this.backend.read(this.#logits) as Float32Array;
      logits.set(rows.subarray(0, count * classes), start * classes);
    }
    return logits;
  }

  /** Frees everything. */
  dispose(): void {
    this.#executable.dispose();
    this.#forward.dispose();
    const { backend } = this;
    backend.free(this.#x, this.#targets, this.#rowWeights, this.#weight, this.#bias);
    backend.free(this.#dweight, this.#dbias, this.#losses, this.#logits);
  }

  async #compile(): Promise<void> {
    const p = new Program("logistic regression");
    const logits = linear(p, this.#x, this.#weight, this.#bias);
    const { losses, dlogits } = crossEntropy(p, logits, this.#targets, this.#rowWeights);
    emitCopy(p, losses, this.#losses);
    differentiate(p, {
      seeds: [[logits, dlogits]],
      wrt: [[this.#weight, this.#dweight], [this.#bias, this.#dbias]],
    });
    this.#executable = await this.backend.compile(p);
    const forward = new Program("logits");
    emitCopy(forward, linear(forward, this.#x, this.#weight, this.#bias), this.#logits);
    this.#forward = await this.backend.compile(forward);
  }

  #setWeights(x: Float64Array): void {
    const split = this.classes * this.dim;
    this.backend.write(this.#weight, Float32Array.from(x.subarray(0, split)));
    this.backend.write(this.#bias, Float32Array.from(x.subarray(split)));
  }

  async #lossAndGradient(x: Float64Array, data: LogisticData, penalty: number) {
    const { dim, classes, backend } = this;
    const { features, labels } = data;
    const n = labels.length, split = classes * dim;
    this.#setWeights(x);
    const gradient = new Float64Array(x.length);
    let loss = 0;
    const targets = new Float32Array(this.#chunk * classes), weights = new Float32Array(this.#chunk);
    for (let start = 0; start < n; start += this.#chunk) {
      const count = Math.min(this.#chunk, n - start);
      targets.fill(0);
      weights.fill(0).fill(1 / n, 0, count);
      for (let i = 0; i < count; i++) targets[i * classes + labels[start + i]] = 1;
      backend.write(this.#x, features.subarray(start * dim, (start + count) * dim), 0);
      backend.write(this.#targets, targets);
      backend.write(this.#rowWeights, weights);
      await this.#executable.run();
      const losses = await backend.read(this.#losses) as Float32Array;
      for (let i = 0; i < count; i++) loss += losses[this.#chunk + i] / n;
      const dweight = await backend.read(this.#dweight) as Float32Array;
      const dbias = await backend.read(this.#dbias) as Float32Array;
      for (let i = 0; i < split; i++) gradient[i] += dweight[i];
      for (let i = 0; i < classes; i++) gradient[split + i] += dbias[i];
    }
    for (let i = 0; i < split; i++) {
      loss += penalty / 2 * x[i] * x[i];
      gradient[i] += penalty * x[i];
    }
    return { value: loss, gradient };
  }
}
