// Which network a configuration names, and what that network can take.

import { RESNET_SIZES, resnetConfig } from "../../models/resnet.ts";
import { VIT_SIZES } from "../../models/vit.ts";
import { XCIT_SIZES } from "../../models/xcit.ts";
import { type Config, type FittedConfig, modelFields, XCIT_ARCHES, type XcitArch } from "../config.ts";
import { flagOf } from "./field.ts";

/** Whether an arch is a ResNet, which has no patches, heads or MLPs to speak of. */
export function isResnet(arch: string): arch is keyof typeof RESNET_SIZES {
  return Object.hasOwn(RESNET_SIZES, arch);
}

/** Whether an arch is an XCiT, such as `xcit_small_12_p16`. */
export function isXcit(arch: string): arch is XcitArch {
  return (XCIT_ARCHES as readonly string[]).includes(arch);
}

/** The published extents of an XCiT, and the patch size in its name. */
export function xcitOf(arch: XcitArch): (typeof XCIT_SIZES)[keyof typeof XCIT_SIZES] & { patchSize: number } {
  const [, size, patch] = /^(.*)_p(\d+)$/.exec(arch)!;
  return { ...XCIT_SIZES[size as keyof typeof XCIT_SIZES], patchSize: Number(patch) };
}

/** The patch size: that in the arch's name, if there is one. */
export function patchOf({ arch, patchSize }: Pick<Config, "arch" | "patchSize">): number {
  // 16 is what nobody has asked for.
  return isXcit(arch) && patchSize === modelFields.patchSize.default ? xcitOf(arch).patchSize : patchSize;
}

/** What the sides of crops must be multiples of. */
export function sideStep(config: Config): number {
  return isResnet(config.arch) ? 1 : patchOf(config);
}

/** Width, blocks and heads of the transformer a configuration names. */
export interface Architecture {
  /** Width. */
  readonly embedDim: number;
  /** Blocks. */
  readonly depth: number;
  /** Attention heads. */
  readonly numHeads: number;
}

/** What a configuration may say in place of its arch's; beside another arch that is named later it means nothing. */
export const EXTENTS = ["embedDim", "depth", "numHeads"] as const satisfies readonly (keyof Architecture)[];

/**
 * The arch's dimensions with those given besides in their place.
 *
 * @throws {RangeError} if the width cannot be divided among the heads
 */
export function architectureOf(config: Pick<Config, "arch" | "embedDim" | "depth" | "numHeads">): Architecture {
  const named = isXcit(config.arch)
    ? xcitOf(config.arch)
    : VIT_SIZES[config.arch.replace(/^deit_/, "vit_") as keyof typeof VIT_SIZES]; // DeiT's are the same networks
  const embedDim = config.embedDim ?? named.embedDim;
  const depth = config.depth ?? named.depth;
  const numHeads = config.numHeads ?? named.numHeads;
  if (embedDim % numHeads !== 0) {
    const heads = [...Array(numHeads).keys()].map((h) => numHeads - h).find((h) => embedDim % h === 0);
    throw new RangeError(
      `--embed-dim ${embedDim} is not a multiple of --num-heads ${numHeads}: use --num-heads ${heads}`,
    );
  }
  return { embedDim, depth, numHeads };
}

/**
 * Checks the values that say what the network is.
 *
 * @throws {RangeError} for values that cannot be, or cannot go together, with the fix
 */
export function checkArchitecture(config: FittedConfig): void {
  if (isResnet(config.arch)) checkResnet(config);
  else checkTransformer(config);
  if (isXcit(config.arch)) checkXcit(config);
}

function checkTransformer(config: FittedConfig): void {
  const { embedDim } = architectureOf(config);
  if (!Number.isInteger(embedDim * config.mlpRatio)) {
    throw new RangeError(
      `--mlp-ratio ${config.mlpRatio} times the width of ${embedDim} is not a whole number: ` +
        `use --mlp-ratio ${Math.max(1, Math.round(config.mlpRatio))}`,
    );
  }
  const sizes = [["global", config.globalCropSize]] as [string, number][];
  if (config.localCropsNumber > 0) sizes.push(["local", config.localCropSize]);
  for (const [view, size] of sizes) {
    if (size % config.patchSize === 0) continue;
    const below = size - size % config.patchSize;
    throw new RangeError(
      `--${view}-crop-size ${size} is not a multiple of --patch-size ${config.patchSize}: ` +
        `use --${view}-crop-size ${below || config.patchSize}, or another --patch-size`,
    );
  }
}

function checkResnet(config: FittedConfig): void {
  const { basePlanes, embedDim } = resnetConfig(RESNET_SIZES[config.arch as keyof typeof RESNET_SIZES]);
  const perPlane = embedDim / basePlanes;
  if (config.embedDim !== null && config.embedDim % perPlane !== 0) {
    throw new RangeError(
      `--embed-dim ${config.embedDim}: the features of ${config.arch} are a multiple of ${perPlane} wide: use ${
        perPlane * Math.max(1, Math.round(config.embedDim / perPlane))
      }`,
    );
  }
  for (const key of ["depth", "numHeads"] as const) {
    if (config[key] === null) continue;
    throw new RangeError(
      `--${flagOf(key)} ${config[key]}: ${config.arch} has its own: leave it out, or choose a vit arch`,
    );
  }
  if (config.registers > 0) {
    throw new RangeError(`--registers ${config.registers}: ${config.arch} has no tokens: leave it out`);
  }
  if (config.batchSize / config.accumulate < 2) {
    throw new RangeError(
      `--batch-size ${config.batchSize} in --accumulate ${config.accumulate} parts: batch norm needs 2 images at once or more`,
    );
  }
}

function checkXcit({ arch, patchSize, embedDim, registers }: FittedConfig): void {
  const own = xcitOf(arch as XcitArch).patchSize;
  if (patchSize !== own) {
    throw new RangeError(
      `--patch-size ${patchSize}: the patches of ${arch} are ${own} pixels: leave it out, or use --arch ` +
        arch.replace(/\d+$/, String(own === 8 ? 16 : 8)),
    );
  }
  if (embedDim !== null && embedDim % (own / 2) !== 0) {
    throw new RangeError(
      `--embed-dim ${embedDim}: the convolutions of ${arch} halve it: use ${
        Math.max(1, Math.round(2 * embedDim / own)) * own / 2
      }`,
    );
  }
  if (registers > 0) {
    throw new RangeError(`--registers ${registers}: ${arch} has none: leave it out, or choose a vit arch`);
  }
}

/** Sentences on what is possible, but unusual for the network. */
export function unusualArchitecture(config: FittedConfig): string[] {
  if (isResnet(config.arch)) return unusualResnet(config);
  const notices = isXcit(config.arch) ? unusualParts(config) : [];
  const grid = config.globalCropSize / config.patchSize;
  if (grid < FEW_PATCHES) {
    const shown = `a crop of ${config.globalCropSize} pixels has only ${grid}×${grid} patches of ${config.patchSize}: `;
    const smaller = largestDivisor(config.globalCropSize, config.globalCropSize / 6);
    notices.push(shown + (isXcit(config.arch) ? "larger crops" : `--patch-size ${smaller}`) + " would show more");
  }
  return notices;
}

/** Patches on a side below which a transformer has little to attend to. */
const FEW_PATCHES = 4;

/** Pixels that the last stage of a ResNet makes one of. */
const RESNET_STRIDE = 32;

/** Batch norms see what is computed together. */
function unusualParts({ accumulate, cropChunk }: FittedConfig): string[] {
  const notices: string[] = [];
  if (accumulate > 1) {
    notices.push(
      `--accumulate ${accumulate}: batch norms see each part by itself, so the update is not that of the whole batch at once`,
    );
  }
  if (cropChunk !== null) {
    notices.push(
      `--crop-chunk ${cropChunk}: batch norms see each chunk by itself, so the update is not that of all views at once`,
    );
  }
  return notices;
}

function unusualResnet(config: FittedConfig): string[] {
  const { arch, globalCropSize, localCropSize, localCropsNumber, dropPathRate } = config;
  const notices = unusualParts(config);
  const least = localCropsNumber > 0 ? Math.min(globalCropSize, localCropSize) : globalCropSize;
  if (least <= RESNET_STRIDE) {
    notices.push(
      `crops of ${least} pixels are one pixel behind the last stage of ${arch}: larger ones would show more`,
    );
  }
  if (dropPathRate !== 0 && dropPathRate !== modelFields.dropPathRate.default) {
    notices.push(`--drop-path-rate ${dropPathRate}: ${arch} drops nothing, as torchvision's`);
  }
  return notices;
}

/** The largest divisor of `n` that is at most `limit`, or 1. */
function largestDivisor(n: number, limit: number): number {
  for (let d = Math.floor(limit); d > 1; d--) if (n % d === 0) return d;
  return 1;
}
