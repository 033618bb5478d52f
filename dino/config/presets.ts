// Named starting points: what each is for, and what it costs and gives where that has been measured.

import type { Config } from "../config.ts";
import { EXTENTS } from "./architecture.ts";
import { nearestName } from "./nearest_name.ts";

/** Values that differ from the defaults, and why one would want them. */
export interface Preset {
  /** What it is for; a figure only with the run that gave it. */
  readonly about: string;
  /** What it sets; everything else keeps its default. */
  readonly values: Readonly<Partial<Config>>;
}

/**
 * For grey images of about 32 pixels, and a thousand or two of updates. k-NN of such runs first falls, then rises; what
 * made it rise early, each seen in runs of its own, stands beside the value.
 */
const sample = {
  arch: "vit_tiny",
  patchSize: 8,
  embedDim: 96,
  depth: 3,
  numHeads: 3,
  // At this width the published 0.02 leaves attention uniform, and a short run never gets away from that.
  initStd: 0.1,
  dropPathRate: 0,
  outDim: 256,
  headHiddenDim: 256,
  headBottleneckDim: 64,
  epochs: 10,
  batchSize: 32,
  warmupEpochs: 1,
  lr: 0.006,
  weightDecayEnd: 0.04,
  freezeLastLayer: 0,
  // A center that lags behind fast weights is a target common to all images: easy to agree on, and empty.
  centerMomentum: 0.1,
  warmupTeacherTemp: 0.02,
  teacherTemp: 0.025,
  warmupTeacherTempEpochs: 5,
  // A short run needs a teacher that follows at once, to the end.
  momentumTeacher: 0.97,
  momentumTeacherEnd: 0.995,
  localCropsNumber: 4,
  globalCropsScale: [0.4, 1],
  localCropsScale: [0.15, 0.5],
  // Without it both networks agree on the brightness of a crop and look no further.
  jitterProb: 1,
  brightness: 0.6,
  contrast: 0.6,
  saturation: 0,
  hue: 0,
  grayProb: 0,
  blurProbGlobal1: 0,
  blurProbGlobal2: 0,
  blurProbLocal: 0,
  knnEvery: 5,
  nbKnn: [20],
} as const satisfies Partial<Config>;

/** Every preset by the name `--preset` takes. */
export const presets: Readonly<Record<string, Preset>> = {
  sample: {
    about: "small grey images on two CPU cores; on the sample k-NN goes from 65.7 % to 70.9 % (raw pixels 79.2 %) " +
      "in 1250 updates: about a minute on two CPU cores",
    values: sample,
  },
  "sample-long": {
    about: "the same with 3000 updates: k-NN goes from 65.7 % to 73.1 %, in 6.5 minutes on two busy CPU cores",
    values: { ...sample, epochs: 24, knnEvery: 8, momentumTeacherEnd: 0.998, warmupTeacherTempEpochs: 8 },
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
 * @param arch taken instead of the preset's, with its own width, blocks and heads; and its own patches, if it is no ViT
 * @throws {RangeError} if there is no preset of that name
 */
export function applyPreset(name: string, base: Config, arch?: Config["arch"]): Config {
  if (!Object.hasOwn(presets, name)) {
    const nearest = nearestName(name, Object.keys(presets));
    const known = nearest ? `did you mean ${nearest}?` : `there are ${Object.keys(presets).join(", ")}`;
    throw new RangeError(`--preset ${name}: is not known: ${known}`);
  }
  const values = { ...presets[name].values };
  if (arch !== undefined) {
    values.arch = arch;
    for (const key of EXTENTS) delete values[key];
    if (!/^(vit|deit)_/.test(arch)) delete values.patchSize;
  }
  return { ...base, ...values };
}
