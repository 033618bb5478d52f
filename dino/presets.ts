// Named starting points: what each is for, and what it costs and gives where that has been measured.

import type { Config } from "./config.ts";
import { nearestName } from "./flags.ts";

/** Values that differ from the defaults, and why one would want them. */
export interface Preset {
  /** What it is for; a figure only with the run that gave it. */
  readonly about: string;
  /** What it sets; everything else keeps its default. */
  readonly values: Readonly<Partial<Config>>;
}

/** Shared by the presets for images of about 32 pixels. */
const tiny = {
  arch: "vit_tiny",
  patchSize: 4,
  embedDim: 96,
  depth: 4,
  numHeads: 3,
  dropPathRate: 0,
  headHiddenDim: 256,
  headBottleneckDim: 64,
  normLastLayer: true,
  localCropsNumber: 4,
  clipGrad: 3,
  warmupEpochs: 1,
  nbKnn: [20],
} as const satisfies Partial<Config>;

/** Every preset by the name `--preset` takes. */
export const presets: Readonly<Record<string, Preset>> = {
  sample: {
    about: "small grey images on two CPU cores in minutes; what runs when there is no --data",
    values: {
      ...tiny,
      epochs: 9,
      batchSize: 32,
      outDim: 256,
      momentumTeacher: 0.98,
      teacherTemp: 0.05,
      warmupTeacherTemp: 0.05,
      lr: 0.008,
      localCropsScale: [0.1, 0.5],
      jitterProb: 0,
      grayProb: 0,
      solarizeProb: 0,
      blurProbGlobal1: 0,
      blurProbGlobal2: 0,
      blurProbLocal: 0,
    },
  },
  "vit-s16": {
    about: "the reference's vanilla recipe for ViT-S/16 on ImageNet: 100 epochs, batch 512; published k-NN 69.3",
    values: { arch: "vit_small", patchSize: 16, epochs: 100, batchSize: 512 },
  },
  "vit-s16-boost": {
    about: "the reference's longer recipe for ViT-S/16: 300 epochs, batch 1024; published k-NN 73.3",
    values: {
      arch: "vit_small",
      patchSize: 16,
      epochs: 300,
      batchSize: 1024,
      teacherTemp: 0.07,
      warmupTeacherTempEpochs: 30,
      normLastLayer: false,
    },
  },
  "vit-s16-released": {
    about: "the arguments of the released ViT-S/16: 800 epochs, batch 1024; published k-NN 74.5",
    values: {
      arch: "vit_small",
      patchSize: 16,
      epochs: 800,
      batchSize: 1024,
      localCropsNumber: 10,
      globalCropsScale: [0.25, 1],
      localCropsScale: [0.05, 0.25],
      teacherTemp: 0.07,
      warmupTeacherTempEpochs: 30,
      normLastLayer: false,
      clipGrad: 0,
      minLr: 1e-5,
    },
  },
  "vit-b16-released": {
    about: "the arguments of the released ViT-B/16: 400 epochs, batch 1024; published k-NN 76.1",
    values: {
      arch: "vit_base",
      patchSize: 16,
      epochs: 400,
      batchSize: 1024,
      localCropsNumber: 10,
      globalCropsScale: [0.25, 1],
      localCropsScale: [0.05, 0.25],
      teacherTemp: 0.07,
      warmupTeacherTempEpochs: 50,
      clipGrad: 0.3,
      freezeLastLayer: 3,
      lr: 7.5e-4,
      minLr: 2e-6,
    },
  },
};

/**
 * Lays a preset over a configuration.
 *
 * @throws {RangeError} if there is no preset of that name
 */
export function applyPreset(name: string, base: Config): Config {
  if (!Object.hasOwn(presets, name)) {
    const nearest = nearestName(name, Object.keys(presets));
    const known = nearest ? `did you mean ${nearest}?` : `there are ${Object.keys(presets).join(", ")}`;
    throw new RangeError(`--preset ${name}: is not known: ${known}`);
  }
  return { ...base, ...presets[name].values };
}
