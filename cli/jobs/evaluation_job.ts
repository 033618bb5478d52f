// An evaluation inside the compute process: opens weights, images and a backend, and hands them to the command's own code.

import type { Backend } from "../../models/graph/backend.ts";
import { IMAGENET_NORMALIZATION } from "../../models/graph/ops/augment.ts";
import { readTrainingState } from "../../dino/run/checkpoint.ts";
import type { PixelSource } from "../../dino/data/dataset.ts";
import { reopenPixels } from "../../dino/data/open.ts";
import { uploadBackbone } from "../../dino/eval/backbone.ts";
import { type LoadedWeights, loadWeights } from "../../dino/load_weights.ts";
import { givenHeads } from "../terminal/weights_path.ts";
import { openBackend } from "../device/backend.ts";
import type { ComputeContext } from "./job_context.ts";
import type { EvaluationCommand } from "../evaluation/command.ts";
import type { EvaluationJob } from "../processes/messages.ts";

// Literal imports, so that a compiled binary carries every evaluation.
// deno-lint-ignore no-explicit-any
const EVALUATIONS: Readonly<Record<string, () => Promise<EvaluationCommand<any>>>> = {
  features: async () => (await import("../features.ts")).command,
  linear: async () => (await import("../linear.ts")).command,
  throughput: async () => (await import("../throughput.ts")).command,
  map: async () => (await import("../map.ts")).command,
  search: async () => (await import("../search.ts")).command,
  finetune: async () => (await import("../finetune.ts")).command,
  few_shot: async () => (await import("../few_shot.ts")).command,
  retrieval: async () => (await import("../retrieval.ts")).command,
  copy_detection: async () => (await import("../copy_detection.ts")).command,
  video_segmentation: async () => (await import("../video_segmentation.ts")).command,
  attention: async () => (await import("../attention.ts")).command,
};

/** Runs the job; returns the exit status. */
export async function runEvaluationJob(job: EvaluationJob, { tell, signal }: ComputeContext): Promise<number> {
  const command = await EVALUATIONS[job.name]();
  const loaded = job.weights === null ? undefined : await loadWeights(job.weights, job.network, givenHeads(job));
  // A run's own normalisation; a bare file of weights has the published one.
  const ours = loaded && await readTrainingState(loaded.path).then(({ config }) => config, () => undefined);
  const sources: Record<string, PixelSource> = {};
  for (const [name, locator] of Object.entries(job.sources)) sources[name] = await reopenPixels(locator);
  const { backend, reason, details } = await openBackend(job.device);
  try {
    tell({ type: "backend", name: backend.name, description: backend.description, reason, details });
    // A run's own checkpoint fits, and its other network is no surprise.
    for (const message of ours ? [] : loaded?.notices ?? []) tell({ type: "notice", message });
    const outcome = await command.evaluate({
      backend,
      ...loaded ? networkOf(backend, loaded) : NO_NETWORK,
      normalization: ours
        ? { mean: ours.mean, deviation: ours.std }
        : loaded?.preprocessing?.normalization ?? IMAGENET_NORMALIZATION,
      preprocessing: loaded?.preprocessing,
      network: job.network,
      sources,
      extra: job.extra,
      signal,
      progress: (what, done, total) => {
        signal.throwIfAborted();
        tell({ type: "evaluating", what, done, total });
      },
      notice: (message) => tell({ type: "notice", message }),
    }, job.flags);
    tell({ type: "evaluationResult", outcome });
    return 0;
  } finally {
    await backend.close();
    for (const source of Object.values(sources)) source.close();
  }
}

function networkOf(backend: Backend, loaded: LoadedWeights) {
  const { parameters } = uploadBackbone(backend, loaded);
  return { backbone: loaded.backbone, parameters, batchCounts: loaded.batchCounts, weightsPath: loaded.path };
}

/** What a command has that declared to need none. */
const NO_NETWORK = undefined as unknown as ReturnType<typeof networkOf>;
