// What a configuration and a data set amount to: the network, the number of updates, the programs and their memory.

import { planMemory } from "../../models/graph/plan.ts";
import type { Program } from "../../models/graph/program.ts";
import { dropUnreadOutputs } from "../../models/graph/autodiff.ts";
import type { Recomputation } from "../../models/graph/recompute.ts";
import { byteLength } from "../../models/graph/tensor.ts";
import type { NetworkConfig } from "../../models/dino_network.ts";
import type { Config, FittedConfig } from "../config.ts";
import { checkConfig, fitConfig, type ImageFacts } from "../config/check.ts";
import { CropFeed, type PixelExtremes, pixelExtremes } from "../crop_feed.ts";
import { GLOBAL_VIEWS } from "../data/multicrop.ts";
import type { PixelSource } from "../data/dataset.ts";
import { networkOf } from "../config/networks.ts";
import { type Share, WHOLE } from "../ranks/ranks.ts";
import { recomputations } from "../memory/recomputations.ts";
import { DinoState } from "../state.ts";
import { distinctPrograms, type StepPrograms, stepPrograms } from "../step.ts";

/** A run before it starts. Making one touches no device and writes nothing. */
export interface RunPlan {
  /** Every hyperparameter, fitted to the images. */
  readonly config: FittedConfig;
  /** Student's and teacher's architecture. */
  readonly network: NetworkConfig;
  /** Number and usual size of the images. */
  readonly facts: ImageFacts;
  /** Sizes for which room is made. */
  readonly extremes: PixelExtremes;
  /** Images over batch size, rounded down: what does not fill a batch waits for another epoch's order. */
  readonly stepsPerEpoch: number;
  /** Updates of all epochs. */
  readonly totalSteps: number;
  /** Updates after which the run stops: fewer with --steps. */
  readonly lastStep: number;
  /** Which part of every batch is computed here; default all of it. */
  readonly share?: Share;
  /** What the backward pass computes again; default as `--recompute` says, which is nothing for `auto`. */
  readonly recompute?: Recomputation;
  /** Sentences worth telling before it starts. */
  readonly notices: readonly string[];
}

/** Number of images and their median shorter side. */
export function imageFacts(source: PixelSource): ImageFacts {
  const sides = new Int32Array(source.length);
  for (let i = 0; i < source.length; i++) {
    const { height, width } = source.size(i);
    sides[i] = Math.min(height, width);
  }
  return { images: source.length, shorterSide: sides.sort()[source.length >> 1] ?? 0 };
}

/**
 * Fits a configuration to the images and checks it.
 *
 * @param share of every batch that is computed here; `batchSize` counts the images of all ranks
 * @throws {TypeError | RangeError} as `checkConfig`, before anything is done
 */
export function planRun(config: Config, data: PixelSource, share: Share = WHOLE): RunPlan {
  const facts = imageFacts(data);
  const notices: string[] = [];
  const fitted = fitConfig(config, facts, notices);
  notices.push(...checkConfig(fitted, facts));
  requireEqualShares(fitted, share);
  const stepsPerEpoch = Math.floor(facts.images / fitted.batchSize);
  const totalSteps = stepsPerEpoch * fitted.epochs;
  return {
    config: fitted,
    network: networkOf(fitted),
    facts,
    extremes: pixelExtremes(data),
    share,
    stepsPerEpoch,
    totalSteps,
    lastStep: Math.min(totalSteps, fitted.steps ?? totalSteps),
    notices,
  };
}

/** Throws {RangeError} unless every rank computes as many images of a batch: statistics and gradients are added up as equals. */
export function requireEqualShares(
  { batchSize, accumulate }: Pick<Config, "batchSize" | "accumulate">,
  { size }: Share,
): void {
  const parts = accumulate * size;
  if (batchSize % parts === 0) return;
  const below = Math.floor(batchSize / parts) * parts;
  throw new RangeError(
    `--batch-size ${batchSize} cannot be split among ${size} ranks${
      accumulate > 1 ? ` in ${accumulate} parts each` : ""
    }: it counts the images of all of them: use ${below > 0 ? `${below} or ` : ""}${below + parts}`,
  );
}

/** The state of a run, its inputs, and the programs of an update. */
export interface StepSetup {
  /** Networks, moments, center and scalars. */
  readonly state: DinoState;
  /** What the host writes for every update. */
  readonly feed: CropFeed;
  /** What runs for every update. */
  readonly programs: StepPrograms;
}

/** What the programs of an update follow from. */
export type StepPlan = Pick<RunPlan, "config" | "network" | "extremes" | "recompute" | "share">;

/** Writes the programs of an update. */
export function setUpStep({ config, network, extremes, recompute, share = WHOLE }: StepPlan): StepSetup {
  const state = new DinoState(network, config.optimizer);
  const images = config.batchSize / config.accumulate / share.size;
  const feed = new CropFeed(config, network.backbone, images, extremes, share);
  const programs = stepPrograms(state, {
    images,
    accumulate: config.accumulate,
    ranks: share.size,
    globals: GLOBAL_VIEWS,
    views: GLOBAL_VIEWS + config.localCropsNumber,
    groupwise: config.cropChunk !== null,
    recompute: recompute ?? (config.recompute === "always" ? recomputations(config).at(-1) : undefined),
    studentTemp: config.studentTemp,
    centerMomentum: config.centerMomentum,
    beta1: config.adamBeta1,
    beta2: config.adamBeta2,
    eps: config.adamEps,
    momentum: config.sgdMomentum,
    eta: config.larsEta,
  }, feed.source);
  return { state, feed, programs };
}

/** Bytes a run takes on the device, without the backend's own scratch space. */
export interface MemoryEstimate {
  /** Both networks. */
  readonly parameters: number;
  /** Gradients, and the optimizer's moments. */
  readonly gradients: number;
  /** The optimizer's moments. */
  readonly optimizer: number;
  /** The largest program's activations. */
  readonly activations: number;
  /** Pixels, tables, schedules, constants, the center. */
  readonly other: number;
  /** All of it. */
  readonly total: number;
}

/** Bytes that a program's activations share. */
export type ArenaBytes = (program: Program) => number;

const float32Arena: ArenaBytes = (program) => planMemory(program).arenaBytes;

/** Bytes that programs take together: what they name, and activations they share; without the backend's own scratch space. */
export function programBytes(programs: readonly Program[], arenaBytes: ArenaBytes = float32Arena): number {
  const { activations, persistent } = bytesOf(programs, arenaBytes);
  return [...persistent.values()].reduce((a, b) => a + b, activations);
}

/** Activations of programs, and everything else they name by its root. */
function bytesOf(programs: readonly Program[], arenaBytes: ArenaBytes) {
  let activations = 0;
  const persistent = new Map<number, number>();
  for (const program of programs) {
    dropUnreadOutputs(program);
    activations = Math.max(activations, arenaBytes(program)); // programs run one at a time and share it
    for (const root of program.roots()) if (root.role !== "activation") persistent.set(root.id, byteLength(root));
  }
  return { activations, persistent };
}

/**
 * Adds up what the programs of an update will take, before a device is touched.
 *
 * @param arenaBytes how the backend keeps activations; default as f32
 */
export function estimateMemory(
  plan: StepPlan,
  arenaBytes: ArenaBytes = float32Arena,
): MemoryEstimate {
  const { state, programs } = setUpStep(plan);
  const distinct = distinctPrograms(programs);
  const { activations, persistent } = bytesOf(distinct, arenaBytes);
  const take = (...ids: (number | undefined)[]) =>
    ids.reduce<number>((sum, id) => {
      const bytes = id === undefined ? 0 : persistent.get(id) ?? 0;
      if (id !== undefined) persistent.delete(id);
      return sum + bytes;
    }, 0);
  const parameters = take(
    state.student.flat.id,
    state.teacher.flat.id,
    state.studentBuffers.flat.id,
    state.teacherBuffers.flat.id,
  );
  const gradients = take(state.gradients.flat.id);
  const optimizer = take(state.first.flat.id, state.second?.flat.id);
  const other = take(...persistent.keys());
  return {
    parameters,
    gradients,
    optimizer,
    activations,
    other,
    total: parameters + gradients + optimizer + activations + other,
  };
}

/** The largest batch whose update fits `bytes`; 0 if not even one image does. Batches are powers of two. */
export function largestBatch(
  plan: StepPlan & Pick<RunPlan, "facts">,
  bytes: number,
  arenaBytes?: ArenaBytes,
): number {
  let best = 0;
  for (let batchSize = plan.share?.size ?? 1; batchSize <= plan.facts.images; batchSize *= 2) {
    const { total } = estimateMemory({ ...plan, config: { ...plan.config, batchSize, accumulate: 1 } }, arenaBytes);
    if (total > bytes) break;
    best = batchSize;
  }
  return best;
}
