// A configuration from JSON, checked value by value, value against value, and against the images it will train on.

import { type Config, configFields, defaultConfig, type FittedConfig, refusedFlags } from "../config.ts";
import { checkArchitecture, patchOf, sideStep, unusualArchitecture } from "./architecture.ts";
import { checkField, type Field, flagOf } from "./field.ts";
import { normalizeFlag } from "./flags.ts";
import { nearestName } from "./nearest_name.ts";

const fields: Readonly<Record<string, Field>> = configFields;

/**
 * Lays the values of a JSON object over a configuration. Keys may be written as in {@linkcode Config} or as flags.
 *
 * @param json an object of values; a missing one keeps what `base` has
 * @throws {TypeError} if it is not an object, or a value is of another kind
 * @throws {RangeError} if a key is unknown (naming the nearest) or a value is out of bounds
 */
export function configFromJson(json: unknown, base: Config = defaultConfig()): Config {
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new TypeError(`config: wants a JSON object of hyperparameters, not ${JSON.stringify(json)?.slice(0, 40)}`);
  }
  const config: Record<string, unknown> = { ...base };
  const keys = new Map(
    Object.entries(fields).flatMap(([key, field]) => [flagOf(key), ...field.aliases].map((name) => [name, key])),
  );
  for (const [name, value] of Object.entries(json)) {
    const flag = normalizeFlag(name);
    const key = keys.get(flag);
    if (key === undefined) {
      if (Object.hasOwn(refusedFlags, flag)) throw new RangeError(`config: ${name}: ${refusedFlags[flag]}`);
      const nearest = nearestName(flag, keys.keys());
      throw new RangeError(`config: unknown key ${name}${nearest ? `: did you mean ${keys.get(nearest)}?` : ""}`);
    }
    checkField(`--${flagOf(key)}`, fields[key], value);
    config[key] = value;
  }
  return config as Config;
}

/** What is known of the images before training. */
export interface ImageFacts {
  /** How many there are after --limit. */
  readonly images: number;
  /** Usual shorter side in pixels (the median). */
  readonly shorterSide: number;
}

const REFERENCE_GLOBAL = 224;
const REFERENCE_LOCAL = 96;

/**
 * Chooses what was left to fit: crops of 224 and 96 pixels, or less where images are smaller; a warm-up of 10 epochs,
 * or less where there are no more than 10.
 *
 * @param notices receives a sentence for every choice that departs from the defaults
 */
export function fitConfig(config: Config, facts: ImageFacts, notices: string[] = []): FittedConfig {
  const patch = sideStep(config);
  let { globalCropSize, localCropSize } = config;
  if (globalCropSize === null) {
    const side = Math.min(REFERENCE_GLOBAL, facts.shorterSide);
    globalCropSize = Math.max(patch, Math.floor(side / patch) * patch);
    if (globalCropSize !== REFERENCE_GLOBAL) {
      notices.push(`images of ${facts.shorterSide} pixels: --global-crop-size ${globalCropSize}`);
    }
  }
  if (localCropSize === null) {
    const side = globalCropSize === REFERENCE_GLOBAL
      ? REFERENCE_LOCAL
      : globalCropSize * REFERENCE_LOCAL / REFERENCE_GLOBAL;
    localCropSize = Math.max(patch, Math.round(side / patch) * patch);
    if (localCropSize !== REFERENCE_LOCAL && config.localCropsNumber > 0) {
      notices.push(`--local-crop-size ${localCropSize} to go with it`);
    }
  }
  if (config.scaleBlur && globalCropSize !== REFERENCE_GLOBAL) {
    notices.push(`blur sigma scaled by ${(globalCropSize / REFERENCE_GLOBAL).toPrecision(2)} with the global crop`);
  }
  return {
    ...config,
    patchSize: patchOf(config),
    globalCropSize,
    localCropSize,
    warmupEpochs: config.warmupEpochs ?? fittingWarmup(config.epochs),
  };
}

const REFERENCE_WARMUP = 10;

function fittingWarmup(epochs: number): number {
  if (epochs > REFERENCE_WARMUP) return REFERENCE_WARMUP;
  return epochs > 1 ? Math.max(1, Math.round(epochs / 10)) : 0;
}

/**
 * Checks every value, and the values against each other and against the images.
 *
 * @returns sentences worth telling: nothing is wrong, but something is unusual
 * @throws {TypeError} for a value of another kind
 * @throws {RangeError} for values that cannot be, or cannot go together, with the fix
 */
export function checkConfig(config: FittedConfig, facts?: ImageFacts): string[] {
  for (const key of Object.keys(config)) {
    if (Object.hasOwn(fields, key)) continue;
    const nearest = nearestName(key, Object.keys(fields));
    throw new RangeError(`config: unknown key ${key}${nearest ? `: did you mean ${nearest}?` : ""}`);
  }
  for (const [key, field] of Object.entries(fields)) {
    checkField(`--${flagOf(key)}`, field, (config as unknown as Record<string, unknown>)[key]);
  }
  checkArchitecture(config);
  if (config.useFp16) {
    throw new RangeError(
      "--use-fp16 true: mixed precision is --precision f16 here, on --backend webgpu: use that, or leave it out",
    );
  }
  checkBatch(config, facts);
  checkSchedules(config);
  checkCrops(config);
  return unusual(config);
}

function checkBatch(config: FittedConfig, facts?: ImageFacts): void {
  const { batchSize, accumulate } = config;
  if (batchSize % accumulate !== 0) {
    const parts = [...Array(accumulate).keys()].map((a) => accumulate - a).find((a) => batchSize % a === 0);
    throw new RangeError(
      `--batch-size ${batchSize} cannot be split into --accumulate ${accumulate} parts: use ${parts}`,
    );
  }
  if (config.useBnInHead && accumulate > 1) {
    throw new RangeError(
      `--accumulate ${accumulate} with --use-bn-in-head: batch norm needs the statistics of the whole batch at once, ` +
        "so parts cannot equal it: use --accumulate 1, or leave out --use-bn-in-head",
    );
  }
  if (config.useBnInHead && config.cropChunk !== null) {
    throw new RangeError(
      `--crop-chunk ${config.cropChunk} with --use-bn-in-head: batch norm needs the statistics of all views at once, ` +
        "so chunks cannot equal them: leave out one of the two",
    );
  }
  if (facts && batchSize > facts.images) {
    throw new RangeError(
      `--batch-size ${batchSize} is larger than the data set of ${facts.images} images: use --batch-size ${
        Math.min(largestPowerOfTwo(facts.images), facts.images)
      }, or more images`,
    );
  }
}

function largestPowerOfTwo(n: number): number {
  return 2 ** Math.floor(Math.log2(Math.max(n, 1)));
}

function checkSchedules(config: FittedConfig): void {
  for (const key of ["warmupEpochs", "warmupTeacherTempEpochs"] as const) {
    if (config[key] <= config.epochs) continue;
    throw new RangeError(
      `--${flagOf(key)} ${config[key]} is longer than the run of --epochs ${config.epochs}: ` +
        `use --${flagOf(key)} ${Math.floor(config.epochs / 10)}`,
    );
  }
}

function checkCrops(config: FittedConfig): void {
  for (const key of ["globalCropsScale", "localCropsScale", "cropRatio", "blurSigma"] as const) {
    const [low, high] = config[key];
    if (low > high) {
      throw new RangeError(`--${flagOf(key)} ${low} ${high}: the smaller comes first: use ${high} ${low}`);
    }
  }
}

function unusual(config: FittedConfig): string[] {
  const notices = unusualArchitecture(config);
  const peak = config.lr * config.batchSize / config.lrBatch;
  if (config.minLr > peak) {
    notices.push(`--min-lr ${config.minLr} is above the peak of ${peak}: it is not scaled with the batch, --lr is`);
  }
  if (Math.max(config.teacherTemp, config.warmupTeacherTemp) > 0.07) {
    notices.push(`--teacher-temp ${config.teacherTemp}: above 0.07 training tends to collapse`);
  }
  if (config.centerMomentum > 0.99) {
    notices.push(`--center-momentum ${config.centerMomentum}: 0.999 is known to collapse`);
  }
  if (config.momentumTeacherEnd < config.momentumTeacher) {
    notices.push(`--momentum-teacher falls from ${config.momentumTeacher} to ${config.momentumTeacherEnd}`);
  }
  if (config.optimizer === "adamw" && config.batchSize < config.lrBatch / 8 && config.momentumTeacher <= 0.996) {
    notices.push(`--batch-size ${config.batchSize} is small: a teacher momentum of 0.9995 suits long runs better`);
  }
  return notices;
}
