// Which function checks which kind of golden case.
import type { Backend } from "../../../models/graph/backend.ts";
import type { GoldenCase } from "../golden_case.ts";
import { augment } from "./augment.ts";
import { checkpointHostile, checkpointPth } from "./checkpoint.ts";
import { dinoHeadKind, dinoLossKind } from "./head_and_loss.ts";
import { interpolation } from "./interpolation.ts";
import { knn } from "./knn.ts";
import { linearEval, linearFeaturesKind } from "./linear.ts";
import { attentionMask, davisMetrics, videoSeg } from "./pictures.ts";
import { resnetKind } from "./resnet.ts";
import { copyDetection, copyFeatures, multiScale, retrieval } from "./retrieval.ts";
import { optimizers, schedules, trainSteps } from "./training.ts";
import { multicrop, vitBackward, vitForward } from "./vit.ts";

/** How a kind is checked. */
export interface Kind {
  readonly run: (golden: GoldenCase, backend: Backend) => Promise<void>;
  /** Set for kinds that compute on the host whatever the backend. */
  readonly host?: true;
}

/** Every kind that is known. */
export const KINDS: Readonly<Record<string, Kind>> = {
  vit_forward: { run: vitForward },
  vit_backward: { run: vitBackward },
  dino_head: { run: dinoHeadKind },
  dino_loss: { run: dinoLossKind },
  multicrop: { run: multicrop },
  resnet: { run: resnetKind },
  train_steps: { run: trainSteps },
  optimizers: { run: optimizers },
  schedules: { run: (golden) => schedules(golden), host: true },
  interpolation: { run: interpolation },
  augment: { run: augment },
  knn: { run: knn },
  linear_eval: { run: linearEval },
  linear_features: { run: linearFeaturesKind },
  retrieval: { run: retrieval },
  multi_scale: { run: multiScale },
  copy_features: { run: (golden) => copyFeatures(golden), host: true },
  copy_detection: { run: copyDetection },
  video_seg: { run: videoSeg },
  davis_metrics: { run: (golden) => davisMetrics(golden), host: true },
  attention_mask: { run: (golden) => attentionMask(golden), host: true },
  checkpoint_pth: { run: (golden) => checkpointPth(golden), host: true },
  checkpoint_hostile: { run: (golden) => checkpointHostile(golden), host: true },
};
