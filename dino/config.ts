// Every hyperparameter of a DINO run, once: the defaults are the reference's, the type and the flags follow.

import { RESNET_SIZES } from "../models/resnet.ts";
import { XCIT_SIZES } from "../models/xcit.ts";
import { boolean, choice, type Field, integer, integers, number, numbers, text } from "./config/field.ts";

/** An XCiT under the name it is published by: its size and its patches. */
export type XcitArch = `${keyof typeof XCIT_SIZES}_p${16 | 8}`;

/** Every XCiT. */
export const XCIT_ARCHES: readonly XcitArch[] = (Object.keys(XCIT_SIZES) as (keyof typeof XCIT_SIZES)[])
  .flatMap((size) => [`${size}_p16`, `${size}_p8`] as const);

const fraction = { min: 0, max: 1 };
const positive = { above: 0 };
const count = { min: 1 };

/** Where images come from and how they are read. */
export const dataFields = {
  data: text(
    null,
    "folder of images, list of files, tar or zip archive, CIFAR-10/100 or IDX files; without it a small sample",
    {
      aliases: ["data-path"],
    },
  ),
  val: text(null, "held-out images for k-NN; without it a seeded tenth of the labelled images"),
  limit: integer(null, "use the first N images only", { ...count, unit: "images" }),
  numWorkers: integer(null, "decoder processes; auto: one for every core but one", { min: 1, max: 256 }),
  cacheDir: text(null, "where decoded images are packed; auto: inside the run folder"),
  cacheSize: integer(
    null,
    "shorter side kept in the cache; 0: the original size; auto: twice the crop for large photographs or a short disk",
    { min: 0, unit: "pixels" },
  ),
  pad: integer(null, "surround smaller CIFAR and IDX images with black up to this side", { ...count, unit: "pixels" }),
  exif: boolean(true, "turn images upright by their EXIF orientation; --no-exif for parity with the reference"),
};

/** The network. */
export const modelFields = {
  arch: choice(
    [
      ...["vit_tiny", "vit_small", "vit_base", "vit_large", "deit_tiny", "deit_small", "deit_base"] as const,
      ...Object.keys(RESNET_SIZES) as (keyof typeof RESNET_SIZES)[],
      ...XCIT_ARCHES,
    ],
    "vit_small",
    "width/heads: tiny 192/3, small 384/6, base 768/12, large 1024/16 (deit: the same); ResNets and XCiTs by their names",
  ),
  patchSize: integer(16, "side of a patch; smaller is better and slower", { ...count, unit: "pixels" }),
  embedDim: integer(
    null,
    "width instead of the arch's; of a ResNet's features, and of all before them in proportion",
    count,
  ),
  depth: integer(null, "blocks instead of the arch's 12, or 24 of vit_large", count),
  numHeads: integer(null, "attention heads instead of the arch's", count),
  registers: integer(
    0,
    "register tokens after [CLS], as DINOv2 has them: they keep attention maps clean of artefacts",
    {
      min: 0,
      max: 64,
    },
  ),
  mlpRatio: number(4, "hidden width of a block's MLP over its width", positive),
  layerNormEps: number(1e-6, "epsilon of the layer norms", positive),
  initStd: number(0.02, "standard deviation of the initial weights", positive),
  dropPathRate: number(0.1, "stochastic depth of the last block, rising linearly from 0 at the first", {
    min: 0,
    max: 0.99,
  }),
  outDim: integer(65536, "prototypes (outputs of the head); 256 to 4096 for small data sets", { min: 2 }),
  normLastLayer: boolean(true, "freeze the gain of the last layer; false is better for small ViTs, less stable"),
  useBnInHead: boolean(false, "batch norm in the head"),
  headLayers: integer(3, "layers of the head's MLP", { min: 1, max: 16 }),
  headHiddenDim: integer(2048, "hidden width of the head", count),
  headBottleneckDim: integer(256, "width of the L2-normalised bottleneck", count),
};

/** Teacher, temperatures and center. */
export const teacherFields = {
  momentumTeacher: number(0.996, "momentum of the teacher at the start; 0.9995 for small batches", fraction),
  momentumTeacherEnd: number(1, "momentum of the teacher at the end of its cosine", fraction),
  warmupTeacherTemp: number(0.04, "teacher temperature at the start; lower it when the loss does not fall", positive),
  teacherTemp: number(0.04, "teacher softmax temperature after warm-up; above 0.07 is unstable", positive),
  warmupTeacherTempEpochs: integer(0, "epochs of linear warm-up of the teacher temperature", {
    min: 0,
    unit: "epochs",
  }),
  studentTemp: number(0.1, "student softmax temperature", positive),
  centerMomentum: number(0.9, "momentum of the center; 0.999 collapses", fraction),
};

/** Optimizer, schedules and batches. */
export const optimizationFields = {
  epochs: integer(100, "passes over the images", { ...count, unit: "epochs" }),
  steps: integer(null, "stop after N updates; the schedules still span --epochs", { ...count, unit: "updates" }),
  batchSize: integer(64, "images of one update, over everything", {
    ...count,
    unit: "images",
    aliases: ["batch-size-per-gpu"],
  }),
  accumulate: integer(1, "parts in which an update is computed; exactly the whole batch, in less memory", count),
  cropChunk: integer(null, "views of an image that the student computes at a time, in less memory; auto: all", {
    ...count,
    unit: "views",
  }),
  optimizer: choice(["adamw", "sgd", "lars"], "adamw", "adamw for ViTs"),
  lr: number(0.0005, "peak learning rate for a batch of --lr-batch images; scaled linearly with the batch", {
    min: 0,
  }),
  lrBatch: integer(256, "batch size that --lr is stated for", { ...count, unit: "images" }),
  warmupEpochs: integer(
    null,
    "epochs of linear warm-up of the learning rate, from exactly 0; auto: 10, or a tenth of runs up to 10 epochs",
    { min: 0, unit: "epochs" },
  ),
  minLr: number(1e-6, "learning rate at the end; not scaled with the batch", { min: 0 }),
  weightDecay: number(0.04, "weight decay at the start", { min: 0 }),
  weightDecayEnd: number(0.4, "weight decay at the end of its cosine", { min: 0 }),
  clipGrad: number(3, "largest norm of each parameter's own gradient; 0 does not clip", { min: 0 }),
  freezeLastLayer: integer(1, "epochs without updates of the last layer; more when the loss does not fall", {
    min: 0,
    unit: "epochs",
  }),
  adamBeta1: number(0.9, "AdamW's first-moment decay", { min: 0, max: 0.999999 }),
  adamBeta2: number(0.999, "AdamW's second-moment decay", { min: 0, max: 0.99999999 }),
  adamEps: number(1e-8, "AdamW's epsilon", positive),
  sgdMomentum: number(0.9, "momentum of sgd and lars", { min: 0, max: 0.999999 }),
  larsEta: number(0.001, "trust coefficient of lars", positive),
  useFp16: boolean(false, "mixed precision of the reference, which is --precision f16 here"),
};

/** Crops and their augmentation. */
export const cropFields = {
  globalCropsScale: numbers([0.4, 1], "area of a global crop over the image; 0.25 1 in the released runs", {
    above: 0,
    max: 1,
  }),
  localCropsScale: numbers([0.05, 0.4], "area of a local crop over the image", { above: 0, max: 1 }),
  localCropsNumber: integer(8, "local crops an image; 0 trains on the two global crops", { min: 0, max: 64 }),
  globalCropSize: integer(null, "side of a global crop; auto: 224, or fitted to smaller images", {
    ...count,
    unit: "pixels",
  }),
  localCropSize: integer(null, "side of a local crop; auto: 96, or 3/7 of the global crop", {
    ...count,
    unit: "pixels",
  }),
  cropRatio: numbers([3 / 4, 4 / 3], "aspect ratio of a crop before it is made square", positive),
  flipProb: number(0.5, "probability of a horizontal flip", fraction),
  jitterProb: number(0.8, "probability of colour jitter", fraction),
  brightness: number(0.4, "strength of brightness jitter", { min: 0 }),
  contrast: number(0.4, "strength of contrast jitter", { min: 0 }),
  saturation: number(0.2, "strength of saturation jitter", { min: 0 }),
  hue: number(0.1, "strength of hue jitter, in turns", { min: 0, max: 0.5 }),
  grayProb: number(0.2, "probability of greyscale", fraction),
  blurProbGlobal1: number(1, "probability of blur in the first global crop", fraction),
  blurProbGlobal2: number(0.1, "probability of blur in the second global crop", fraction),
  blurProbLocal: number(0.5, "probability of blur in a local crop", fraction),
  blurSigma: numbers([0.1, 2], "sigma of the blur, for a global crop of 224", { min: 0, unit: "pixels" }),
  scaleBlur: boolean(true, "scale the sigma with the global crop over 224; false blurs 32-pixel images to nothing"),
  solarizeProb: number(0.2, "probability of solarization in the second global crop", fraction),
  solarizeThreshold: integer(128, "8-bit value from which solarization inverts", { min: 0, max: 256 }),
  mean: numbers([0.485, 0.456, 0.406], "colour mean subtracted from pixels in 0..1"),
  std: numbers([0.229, 0.224, 0.225], "colour deviation that divides them", positive),
};

/** k-NN during training. */
export const evaluationFields = {
  knnEvery: integer(
    null,
    "epochs between k-NN evaluations where there are labels; 0: never; auto: about ten in the run",
    { min: 0, unit: "epochs" },
  ),
  nbKnn: integers([10, 20, 100, 200], "neighbours; the first one given is the one shown during training", count),
  knnTemperature: number(0.07, "temperature of the vote", positive),
};

/** The run folder. */
export const runFields = {
  out: text(null, "run folder; auto: runs/ and the time", { aliases: ["output-dir"] }),
  seed: integer(0, "of every random draw: weights, order, crops, drop path", { min: 0, max: 2 ** 32 - 1 }),
  saveckpFreq: integer(20, "epochs between checkpoints that stay; the latest is written every epoch as well", {
    min: 1,
    unit: "epochs",
  }),
  saveMinutes: number(10, "minutes after which the latest checkpoint is written within an epoch too", {
    above: 0,
    unit: "minutes",
  }),
  keep: integer(null, "keep the last N of them; auto: all", { min: 1 }),
  init: text(null, "start from these weights"),
};

/** Where it computes. */
export const deviceFields = {
  backend: choice(["auto", "webgpu", "wasm"], "auto", "auto: a real GPU if there is one, else SIMD WebAssembly"),
  adapter: text(null, "GPU by its number or a part of its name"),
  threads: integer(null, "of the wasm backend; auto: all cores", { min: 1, max: 256 }),
  webgpu: choice(
    ["deno", "dawn"],
    "deno",
    "whose WebGPU: the runtime's, or Dawn's, fetched from npm on first use (130 MB, not in a compiled binary)",
  ),
  precision: choice(
    ["f32", "f16"],
    "f32",
    "of stored activations and of the weights that products read, on WebGPU; f16 takes about half the memory, sums stay f32",
  ),
  recompute: choice(
    ["auto", "never", "always"],
    "auto",
    "compute activations again in the backward pass instead of keeping them, the same to the bit; auto: as much as memory lacks",
  ),
  logEvery: integer(20, "updates whose means make one row of the log", {
    min: 1,
    max: 1000,
    unit: "updates",
  }),
};

/** What --verbose does, in every command that computes. */
export const VERBOSE_ADVICE = "tell what the device is: adapter, driver, subgroups, features, limits";

/** What is done with the configuration; not part of it and not recorded in config.json. */
export const commandFields = {
  preset: text(null, "start from a named preset; later flags win"),
  config: text(null, "start from a JSON file such as a run's config.json; later flags win"),
  resume: boolean(false, "continue the run in --out exactly where it stopped"),
  reschedule: boolean(false, "with --resume: accept that another --epochs, batch or --lr bends the schedules"),
  overwrite: boolean(false, "replace the run in --out"),
  dryRun: boolean(false, "print the plan, its memory and its schedules, and write nothing"),
  distributed: choice(
    ["auto", "off", "mpi"],
    "auto",
    "auto: share each batch with the other ranks when started by mpirun, as in mpirun -n 4 dino train; off: train alone",
  ),
  checked: boolean(false, "keep WebAssembly's bounds checks: slower, and a faulty kernel stops with a message"),
  json: boolean(false, "print events as JSON lines"),
  quiet: boolean(false, "print warnings and the result only"),
  verbose: boolean(false, VERBOSE_ADVICE),
};

/** Groups of fields in the order of --help. */
export const fieldGroups: readonly { readonly title: string; readonly fields: Readonly<Record<string, Field>> }[] = [
  { title: "Data", fields: dataFields },
  { title: "Model", fields: modelFields },
  { title: "Teacher and loss", fields: teacherFields },
  { title: "Optimization", fields: optimizationFields },
  { title: "Crops and augmentation", fields: cropFields },
  { title: "Evaluation", fields: evaluationFields },
  { title: "Run folder", fields: runFields },
  { title: "Device", fields: deviceFields },
  { title: "Command", fields: commandFields },
];

/** The fields that make a {@linkcode Config}, by key. */
export const configFields:
  & typeof dataFields
  & typeof modelFields
  & typeof teacherFields
  & typeof optimizationFields
  & typeof cropFields
  & typeof evaluationFields
  & typeof runFields
  & typeof deviceFields = {
    ...dataFields,
    ...modelFields,
    ...teacherFields,
    ...optimizationFields,
    ...cropFields,
    ...evaluationFields,
    ...runFields,
    ...deviceFields,
  };

/** The values that fields describe. */
export type Values<F> = { -readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never };

/** Every hyperparameter of a run; null stands for "fit it", as the field's advice says. */
export type Config = Values<typeof configFields>;

/** A configuration in which nothing about the network, the views or the schedules is left to fit. */
export type FittedConfig = Config & {
  /** Side of a global crop in pixels. */
  readonly globalCropSize: number;
  /** Side of a local crop in pixels. */
  readonly localCropSize: number;
  /** Epochs of linear warm-up. */
  readonly warmupEpochs: number;
};

/** What the command line asks for besides. */
export type Command = Values<typeof commandFields>;

/** The reference's defaults. */
export function defaultConfig(): Config {
  return Object.fromEntries(Object.entries(configFields).map(([key, field]) => [key, field.default])) as Config;
}

/** The command's defaults. */
export function defaultCommand(): Command {
  return Object.fromEntries(Object.entries(commandFields).map(([key, field]) => [key, field.default])) as Command;
}

/** Flags of the reference's launchers and of its other options that have no meaning here, and what takes their place. */
export const refusedFlags: Readonly<Record<string, string>> = {
  "dist-url": "ranks find each other through mpirun, as in mpirun -n 4 dino train: leave it out",
  "local-rank": "mpirun tells each rank which it is: leave it out; choose a GPU with --adapter",
  "world-size": "mpirun -n says how many ranks share a batch; --batch-size counts the images of all of them",
  "nproc-per-node": "mpirun -n says how many ranks there are; --threads sets the CPU threads of each",
  "nnodes": "mpirun --host says which machines take part: leave it out",
  "node-rank": "mpirun tells each rank which it is: leave it out",
  "master-addr": "ranks find each other through mpirun: leave it out",
  "master-port": "ranks find each other through mpirun: leave it out",
  "rank": "mpirun tells each rank which it is: leave it out",
  "gpu": "choose a GPU with --adapter",
  "ngpus":
    "mpirun -n says how many ranks there are, each with an --adapter; --batch-size counts the images of all of them",
  "nodes": "mpirun --host says which machines take part: leave it out",
  "timeout": "there is no job scheduler: stop with Ctrl-C, or after --steps, and continue with --resume",
  "partition": "there is no job scheduler: leave it out",
  "use-volta32": "there is no job scheduler; choose a GPU with --adapter",
  "comment": "there is no job scheduler: leave it out",
};
