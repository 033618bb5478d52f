// k-NN inside the compute process: opens weights, pixels and a backend, and tells accuracies.

import { readTrainingState } from "../../dino/run/checkpoint.ts";
import { reopenPixels } from "../../dino/data/open.ts";
import { uploadBackbone } from "../../dino/eval/backbone.ts";
import { KnnEvaluation } from "../../dino/eval/knn/knn_eval.ts";
import { evaluationSplit } from "../../dino/eval/knn/splits.ts";
import { loadWeights } from "../../dino/load_weights.ts";
import { IMAGENET_NORMALIZATION } from "../../models/graph/ops/augment.ts";
import { openBackend } from "../device/backend.ts";
import { checkCropSize } from "../evaluation/crop_size.ts";
import type { ComputeContext } from "./job_context.ts";
import { refuseForeignClasses } from "../evaluation/labelled_halves.ts";
import type { KnnJob } from "../processes/messages.ts";
import { givenHeads } from "../terminal/weights_path.ts";

/** Runs the job; returns the exit status. */
export async function runKnnJob(job: KnnJob, { tell, signal }: ComputeContext): Promise<number> {
  const loaded = await loadWeights(job.weights, job.network, givenHeads(job));
  const { backbone, path, preprocessing } = loaded;
  // A run's own normalisation and crop; a bare file of weights has the published ones.
  const ours = await readTrainingState(path).then(({ config }) => config, () => undefined);
  const normalization = ours
    ? { mean: ours.mean, deviation: ours.std }
    : preprocessing?.normalization ?? IMAGENET_NORMALIZATION;
  const cropSize = checkCropSize(job.cropSize, backbone, preprocessing);
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
  refuseForeignClasses(split);
  const { backend, reason, details } = await openBackend(job.device);
  try {
    tell({ type: "backend", name: backend.name, description: backend.description, reason, details });
    for (const message of ours ? [] : loaded.notices) tell({ type: "notice", message });
    const { parameters } = uploadBackbone(backend, loaded);
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
    const showing = (what: string) => (done: number, total: number) => tell({ type: "evaluating", what, done, total });
    report(job.network, await evaluation.run(parameters, job.network, signal, showing("images")));
    if (job.pixels) report("pixels", await evaluation.runPixels(signal, showing("images, as pixels,")));
    evaluation.dispose();
    return 0;
  } finally {
    await backend.close();
    data.close();
    val?.close();
  }
}
