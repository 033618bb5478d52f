// k-NN inside the compute process: opens weights, pixels and a backend, and tells accuracies.

import { readTrainingState } from "../dino/checkpoint.ts";
import { reopenPixels } from "../dino/data/open.ts";
import { KnnEvaluation } from "../dino/eval/knn_eval.ts";
import { evaluationSplit } from "../dino/eval/splits.ts";
import { loadWeights } from "../dino/load_weights.ts";
import { IMAGENET_NORMALIZATION } from "../models/graph/ops/augment.ts";
import { type Tensor, tensor } from "../models/graph/tensor.ts";
import { openBackend } from "./backend.ts";
import type { ComputeContext } from "./compute.ts";
import type { KnnJob } from "./messages.ts";

/** Runs the job; returns the exit status. */
export async function runKnnJob(job: KnnJob, { tell, signal }: ComputeContext): Promise<number> {
  const { weights, backbone, path } = await loadWeights(job.weights, job.network);
  // A run's own normalisation and crop; a bare file of weights has the published ones.
  const ours = await readTrainingState(path).then(({ config }) => config, () => undefined);
  const normalization = ours ? { mean: ours.mean, deviation: ours.std } : IMAGENET_NORMALIZATION;
  const cropSize = job.cropSize ?? backbone.imageSize;
  if (cropSize % backbone.patchSize !== 0) {
    throw new RangeError(
      `--crop-size ${cropSize} is not a multiple of the network's patch size ${backbone.patchSize}: ` +
        `use --crop-size ${Math.max(1, Math.round(cropSize / backbone.patchSize)) * backbone.patchSize}`,
    );
  }
  const data = await reopenPixels(job.data);
  const val = job.val && await reopenPixels(job.val);
  const split = evaluationSplit(data, val, job.seed);
  if (!split) {
    throw new RangeError(
      data.length < 2
        ? `${data.name}: ${data.length} image: k-NN wants at least two`
        : `${data.name}: has no labels: name a folder with a subfolder for each class`,
    );
  }
  const { backend, reason } = await openBackend(job.device);
  try {
    tell({ type: "backend", name: backend.name, description: backend.description, reason });
    const parameters = new Map<string, Tensor>();
    for (const [name, { shape, data }] of weights) {
      if (!name.startsWith("backbone.")) continue;
      const t = tensor(name, shape, "param");
      backend.write(t, data as Float32Array<ArrayBuffer>);
      parameters.set(name, t);
    }
    const lookUp = (name: string) => {
      const found = parameters.get(`backbone.${name}`);
      if (!found) throw new SyntaxError(`${path}: backbone.${name} is missing`);
      return found;
    };
    const evaluation = new KnnEvaluation(backend, split, {
      backbone,
      cropSize,
      normalization,
      batch: Math.min(job.batch, split.test.indices.length),
      ks: job.ks,
      temperature: job.temperature,
    });
    const report = (network: string, result: Awaited<ReturnType<KnnEvaluation["run"]>>) => {
      for (const message of result.notices) tell({ type: "notice", message });
      tell({ type: "knnResult", network, split: split.description, accuracies: result.accuracies });
    };
    report(job.network, await evaluation.run(lookUp, job.network, signal));
    if (job.pixels) report("pixels", await evaluation.runPixels(signal));
    evaluation.dispose();
    return 0;
  } finally {
    await backend.close();
    data.close();
    val?.close();
  }
}
