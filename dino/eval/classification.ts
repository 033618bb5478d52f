// Accuracy and loss of a classifier's logits.

/** Accuracy and loss of a classifier on labelled images. */
export interface ClassificationScore {
  /** Percent of images whose class has the highest logit. */
  readonly top1: number;
  /** Percent whose class is among the five highest; undefined with fewer than five classes. */
  readonly top5: number | undefined;
  /** Mean cross-entropy over images. */
  readonly loss: number;
  /** Mean over batches of their mean, which counts a short last batch like a full one: what the reference logs. */
  readonly lossOfBatches: number;
}

/**
 * Scores logits.
 *
 * @param logits [n, classes]
 * @param batch images of a batch of the reference's loss
 */
export function scoreLogits(
  logits: Float32Array,
  labels: ArrayLike<number>,
  classes: number,
  batch: number,
): ClassificationScore {
  let top1 = 0, top5 = 0, sum = 0, batches = 0;
  const n = labels.length;
  for (let start = 0; start < n; start += batch) {
    let here = 0;
    const end = Math.min(start + batch, n);
    for (let i = start; i < end; i++) {
      const row = logits.subarray(i * classes, (i + 1) * classes);
      const mine = row[labels[i]];
      let better = 0, max = -Infinity, total = 0;
      for (let c = 0; c < classes; c++) {
        if (row[c] > mine || row[c] === mine && c < labels[i]) better++;
        if (row[c] > max) max = row[c];
      }
      for (let c = 0; c < classes; c++) total += Math.exp(row[c] - max);
      here += max + Math.log(total) - mine;
      if (better < 1) top1++;
      if (better < 5) top5++;
    }
    sum += here;
    batches += here / (end - start);
  }
  return {
    top1: 100 * top1 / n,
    top5: classes >= 5 ? 100 * top5 / n : undefined,
    loss: sum / n,
    lossOfBatches: batches / Math.ceil(n / batch),
  };
}

/**
 * Logits of a linear classifier, on the host.
 *
 * @param features [n, dim]
 * @param weight [classes, dim]
 * @param bias [classes]
 * @returns [n, classes]
 */
export function linearLogits(features: Float32Array, weight: Float32Array, bias: Float32Array): Float32Array {
  const classes = bias.length, dim = weight.length / classes, n = features.length / dim;
  const logits = new Float32Array(n * classes);
  for (let i = 0; i < n; i++) {
    for (let c = 0; c < classes; c++) {
      let sum = bias[c];
      for (let d = 0; d < dim; d++) sum += features[i * dim + d] * weight[c * dim + d];
      logits[i * classes + c] = sum;
    }
  }
  return logits;
}
