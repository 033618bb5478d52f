// The augmentation as the doctor looks at it: every crop of a few images, drawn as a run draws them.

import { defaultConfig } from "../../dino/config.ts";
import { CropFeed } from "../../dino/crop_feed.ts";
import { pixelsFromMemory } from "../../dino/data/memory.ts";
import { planRun } from "../../dino/run/plan.ts";
import { emitCopy } from "../../models/graph/ops/elementwise.ts";
import { Program } from "../../models/graph/program.ts";
import { ReferenceBackend } from "../../models/graph/reference.ts";
import { tensor } from "../../models/graph/tensor.ts";
import { CounterRandom, STREAM } from "../../models/rng.ts";
import type { PreparedProgram } from "./programs.ts";

const IMAGES = 8, HEIGHT = 37, WIDTH = 45;

/** Two large and four small crops of each of eight images: flips, every adjustment of colours, blurs, solarization. */
export async function cropsProgram(): Promise<PreparedProgram> {
  const random = new CounterRandom(4, STREAM.evaluation);
  const data = Uint8Array.from({ length: IMAGES * HEIGHT * WIDTH * 3 }, () => random.integer(256));
  const source = pixelsFromMemory({ name: "noise", height: HEIGHT, width: WIDTH, channels: 3, data });
  const sizes = { patchSize: 4, globalCropSize: 28, localCropSize: 12, localCropsNumber: 4, batchSize: IMAGES };
  const { config, network, extremes } = planRun({ ...defaultConfig(), ...sizes, epochs: 100 }, source);
  const feed = new CropFeed(config, network.backbone, IMAGES, extremes);
  const program = new Program("crops"), reference = new ReferenceBackend();
  for (const { patches } of feed.source(program).student) {
    emitCopy(program, patches, tensor("crops", patches.shape, "output"));
  }
  const indices = Array.from({ length: IMAGES }, (_, i) => i), batch = await source.readBatch(indices);
  feed.plan(batch, indices, 0);
  feed.write(reference, batch, 0, 0);
  return { program, reference };
}
