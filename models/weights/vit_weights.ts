// A Vision Transformer from a file of weights: its architecture by the shapes, its tensors, and a report on both.

import { bicubicAxis } from "../interpolate.ts";
import { VIT_SIZES, type VitConfig, vitConfig, vitShapes } from "../vit.ts";
import { findNetwork, type NetworkName, type NetworkTensor, type NetworkTensors } from "./network.ts";
import { type TensorFile } from "./tensor_file.ts";

/** A tensor in memory. */
export interface LoadedTensor {
  /** Extents. */
  readonly shape: readonly number[];
  /** Elements, row-major. */
  readonly data: Float32Array<ArrayBuffer>;
}

/** What fitted and what did not. Names are published ones, but `unexpected`, which are the file's own. */
export interface WeightsReport {
  /** There, of the right shape. */
  readonly matched: readonly string[];
  /** Needed, not there. */
  readonly missing: readonly string[];
  /** There, not used. */
  readonly unexpected: readonly string[];
  /** There, of another shape than wanted. */
  readonly shapeDifferences: readonly { name: string; there: readonly number[]; wanted: readonly number[] }[];
  /** Sentences on what was assumed or changed. */
  readonly notices: readonly string[];
}

/** How to read a ViT. */
export interface VitReading {
  /** Of a checkpoint with two; default the teacher. */
  readonly network?: NetworkName;
  /** What the file cannot tell: heads and epsilon are not to be seen in shapes. */
  readonly config?: Partial<Pick<VitConfig, "numHeads" | "layerNormEps">>;
  /** Resamples the position embedding for images of this side, in pixels. */
  readonly imageSize?: number;
}

/** A ViT in memory. */
export interface VitWeights {
  /** Its architecture. */
  readonly config: VitConfig;
  /** By published names: `backbone.*`, and `head.*` if the file has a projection head. */
  readonly weights: ReadonlyMap<string, LoadedTensor>;
  /** What fitted, and what did not. */
  readonly report: WeightsReport;
}

/**
 * Reads a Vision Transformer.
 *
 * @throws {SyntaxError} if the file holds none, or one with tensors missing
 * @throws {TypeError} if it is of a kind this project cannot run (gated MLPs, distillation tokens), naming what
 */
export async function readVit(file: TensorFile, reading: VitReading = {}): Promise<VitWeights> {
  return await readVitNetwork(findNetwork(file, reading.network), reading);
}

/** {@linkcode readVit} of a network that was found. */
export async function readVitNetwork(network: NetworkTensors, reading: VitReading = {}): Promise<VitWeights> {
  const { config, notices } = inferVit(network, reading.config);
  const report = compareVit(network, config, notices);
  requireComplete(network.file, report, "Vision Transformer");
  const weights = await readMatched(network, report);
  if (reading.imageSize === undefined || reading.imageSize === config.imageSize) return { config, weights, report };
  const resized = resamplePositions(config, weights.get("backbone.pos_embed")!, reading.imageSize);
  weights.set("backbone.pos_embed", resized.tensor);
  const side = (size: number) => Math.floor(size / config.patchSize);
  const notice = `position embedding resampled from ${side(config.imageSize)}² to ${side(reading.imageSize)}² patches`;
  return { config: resized.config, weights, report: { ...report, notices: [...notices, notice] } };
}

/** Throws {SyntaxError} if a network lacks tensors, or has some of another shape. */
export function requireComplete(file: TensorFile, report: WeightsReport, what: string): void {
  if (report.missing.length > 0 || report.shapeDifferences.length > 0) {
    throw new SyntaxError(`${file.name}: is no complete ${what}: ${describeReport(report)}`);
  }
}

/** Reads what matched, and the projection head if there is one. */
export async function readMatched(
  { tensors }: NetworkTensors,
  { matched }: WeightsReport,
): Promise<Map<string, LoadedTensor>> {
  const wanted = new Set(matched);
  const weights = new Map<string, LoadedTensor>();
  for (const [name, tensor] of tensors) {
    if (wanted.has(name) || name.startsWith("head.")) {
      weights.set(name, { shape: tensor.shape, data: await tensor.read() });
    }
  }
  return weights;
}

/** Heads of the published transformers are 64 wide, whatever the width of the model. */
const HEAD_WIDTH = 64;

/**
 * Architecture by the shapes; heads and epsilon from what the file says about itself, else the published convention.
 *
 * @throws {SyntaxError} if shapes contradict each other
 * @throws {TypeError} if it is no ViT this project can run
 */
export function inferVit(
  { file, family, tensors }: NetworkTensors,
  given: VitReading["config"] = {},
): { config: VitConfig; notices: string[] } {
  if (family !== "vit") {
    throw new TypeError(`${file.name}: holds ${family === "resnet" ? "a ResNet" : "an XCiT"}, no ViT`);
  }
  refuseVariants(file, tensors);
  const shape = (name: string, dimensions: number) => {
    const found = tensors.get(`backbone.${name}`)?.shape;
    if (found?.length !== dimensions || found.includes(0)) {
      throw new SyntaxError(`${file.name}: ${name} is ${found ? `[${found}]` : "missing"}: no Vision Transformer`);
    }
    return found;
  };
  const [embedDim, inChannels, patchSize] = shape("patch_embed.proj.weight", 4);
  const side = Math.sqrt(shape("pos_embed", 3)[1] - 1);
  if (!Number.isInteger(side) || side < 1) {
    throw new SyntaxError(
      `${file.name}: pos_embed [${shape("pos_embed", 3)}] is not of a square grid and a class token`,
    );
  }
  let depth = 0;
  while (tensors.has(`backbone.blocks.${depth}.attn.proj.weight`)) depth++;
  if (depth === 0) throw new SyntaxError(`${file.name}: has no blocks: no Vision Transformer`);
  const said = { ...describedBy(file), ...withoutUndefined(given) };
  const notices: string[] = [];
  let { numHeads } = said;
  if (numHeads === undefined) {
    numHeads = Math.max(1, Math.round(embedDim / HEAD_WIDTH));
    while (embedDim % numHeads !== 0) numHeads--;
    if (!Object.values(VIT_SIZES).some((size) => size.embedDim === embedDim && size.depth === depth)) {
      notices.push(`the file does not say how many heads it has: ${numHeads} are assumed; --num-heads tells`);
    }
  }
  if (!Number.isSafeInteger(numHeads) || numHeads < 1 || embedDim % numHeads !== 0) {
    throw new SyntaxError(`${file.name}: width ${embedDim} does not divide into ${numHeads} heads`);
  }
  const registers = tensors.has("backbone.register_tokens") ? shape("register_tokens", 3)[1] : 0;
  return {
    config: vitConfig({
      embedDim,
      inChannels,
      patchSize,
      depth,
      numHeads,
      imageSize: side * patchSize,
      mlpRatio: shape("blocks.0.mlp.fc1.weight", 2)[0] / embedDim,
      qkvBias: tensors.has("backbone.blocks.0.attn.qkv.bias"),
      ...(registers > 0 ? { registers } : {}),
      ...(said.layerNormEps === undefined ? {} : { layerNormEps: said.layerNormEps }),
    }),
    notices,
  };
}

/** Metadata key under which our own files describe their ViT. */
export const VIT_KEY = "denodino.vit";

/** What config.json of a Hugging Face folder, or our own metadata, says beyond the shapes. */
export function describedBy({ config, metadata }: TensorFile): { numHeads?: number; layerNormEps?: number } {
  const positive = (value: unknown) =>
    typeof value === "number" && value > 0 && Number.isFinite(value) ? value : undefined;
  if (config) {
    return withoutUndefined({
      numHeads: positive(config.num_attention_heads),
      layerNormEps: positive(config.layer_norm_eps),
    });
  }
  try {
    const ours = JSON.parse(metadata[VIT_KEY] ?? "{}");
    return withoutUndefined({ numHeads: positive(ours?.numHeads), layerNormEps: positive(ours?.layerNormEps) });
  } catch {
    return {}; // not ours after all
  }
}

function withoutUndefined<T extends object>(record: T): T {
  return Object.fromEntries(Object.entries(record).filter(([, value]) => value !== undefined)) as T;
}

function refuseVariants(file: TensorFile, tensors: ReadonlyMap<string, NetworkTensor>): void {
  const variants: [string, string][] = [
    ["dist_token", "a distillation token"],
    ["norm_pre.weight", "a norm before its blocks"],
    ["blocks.0.mlp.w12.weight", "gated MLPs"],
    ["blocks.0.attn.q_norm.weight", "normalised queries"],
  ];
  for (const [name, what] of variants) {
    if (tensors.has(`backbone.${name}`)) {
      throw new TypeError(`${file.name}: has ${what} (${name}), which cannot be run here`);
    }
  }
}

/** Holds the network's tensors against what its architecture needs. */
export function compareVit(network: NetworkTensors, config: VitConfig, notices: readonly string[] = []): WeightsReport {
  return compareNetwork(network, vitShapes(config), notices);
}

/** Holds a network's tensors against names and shapes, given without `backbone.`. */
export function compareNetwork(
  network: NetworkTensors,
  shapes: Iterable<readonly [name: string, shape: readonly number[]]>,
  notices: readonly string[] = [],
): WeightsReport {
  const matched: string[] = [], missing: string[] = [];
  const shapeDifferences: { name: string; there: readonly number[]; wanted: readonly number[] }[] = [];
  const expected = new Set<string>();
  for (const [short, wanted] of shapes) {
    const name = `backbone.${short}`;
    expected.add(name);
    const there = network.tensors.get(name)?.shape;
    if (!there) missing.push(name);
    else if (there.join() !== wanted.join()) shapeDifferences.push({ name, there, wanted });
    else matched.push(name);
  }
  const odd = [...network.tensors].filter(([name]) => !expected.has(name) && !name.startsWith("head."));
  const unexpected = [...odd.flatMap(([, { sources }]) => sources), ...network.rest];
  return { matched, missing, unexpected, shapeDifferences, notices };
}

/** A report in a sentence, a few names of each kind. */
export function describeReport({ matched, missing, unexpected, shapeDifferences, notices }: WeightsReport): string {
  const some = (names: readonly string[]) =>
    names.slice(0, 3).join(", ") + (names.length > 3 ? ` and ${names.length - 3} more` : "");
  const differing = shapeDifferences.map(({ name, there, wanted }) => `${name} is [${there}], not [${wanted}]`);
  return [
    `${matched.length} tensors matched`,
    ...(missing.length ? [`${missing.length} missing: ${some(missing)}`] : []),
    ...(differing.length ? [`${differing.length} of another shape: ${some(differing)}`] : []),
    ...(unexpected.length ? [`${unexpected.length} not used: ${some(unexpected)}`] : []),
    ...notices,
  ].join("; ");
}

/**
 * The position embedding for another image size, resampled as the reference does while it runs: the result of the network
 * on images of that size stays the same.
 *
 * @throws {RangeError} if the size is no whole number of pixels, at least a patch
 */
export function resamplePositions(
  config: VitConfig,
  { data }: LoadedTensor,
  imageSize: number,
): { config: VitConfig; tensor: LoadedTensor } {
  if (!Number.isSafeInteger(imageSize) || imageSize < config.patchSize) {
    throw new RangeError(`imageSize ${imageSize}: use a whole number of pixels, ${config.patchSize} or more`);
  }
  const D = config.embedDim;
  const from = Math.floor(config.imageSize / config.patchSize), to = Math.floor(imageSize / config.patchSize);
  const { weights } = bicubicAxis(from, to, (to + 0.1) / from); // [to, from]
  const columns = new Float64Array(from * to * D); // [from, to, D]: resampled along rows of the grid
  for (let y = 0; y < from; y++) {
    for (let o = 0; o < to; o++) {
      for (let x = 0; x < from; x++) {
        const w = weights[o * from + x];
        if (w === 0) continue;
        for (let d = 0; d < D; d++) columns[(y * to + o) * D + d] += w * data[(1 + y * from + x) * D + d];
      }
    }
  }
  const grid = new Float64Array(to * to * D);
  for (let o = 0; o < to; o++) {
    for (let y = 0; y < from; y++) {
      const w = weights[o * from + y];
      if (w === 0) continue;
      for (let i = 0; i < to * D; i++) grid[o * to * D + i] += w * columns[y * to * D + i];
    }
  }
  const all = new Float32Array((1 + to * to) * D);
  all.set(data.subarray(0, D)); // the class token has no place in the grid
  all.set(grid, D);
  return { config: { ...config, imageSize: to * config.patchSize }, tensor: { shape: [1, 1 + to * to, D], data: all } };
}
