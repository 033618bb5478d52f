// XCiT: a transformer whose channels, not tokens, attend to each other; parameters under their published names, and the forward pass.
import { attention, attentionProbs } from "./graph/ops/attention.ts";
import { batchNorm } from "./graph/ops/batch_norm.ts";
import { conv2d, type Grid } from "./graph/ops/convolution.ts";
import { crossCovariance } from "./graph/ops/cross_covariance.ts";
import { depthwiseConv } from "./graph/ops/depthwise.ts";
import { gelu } from "./graph/ops/elementwise.ts";
import { layerScale } from "./graph/ops/layer_scale.ts";
import { linear } from "./graph/ops/matmul.ts";
import { layerNorm } from "./graph/ops/norm.ts";
import { assembleTokens, gatherRows } from "./graph/ops/tokens.ts";
import { type Program, require } from "./graph/program.ts";
import { type Tensor, tensor } from "./graph/tensor.ts";
import type { Parameters, PatchBatch } from "./vit.ts";

/** Extents and options of an XCiT. */
export interface XcitConfig {
  /** Tells it from other backbones. */
  readonly family: "xcit";
  /** Side in pixels of the images it is made for; any others work, positions are computed. */
  readonly imageSize: number;
  /** Side in pixels of what becomes a token: a power of two, each factor 2 a convolution of stride 2. */
  readonly patchSize: number;
  /** Colour channels. */
  readonly inChannels: number;
  /** Width of a token, D. */
  readonly embedDim: number;
  /** Blocks of cross-covariance attention. */
  readonly depth: number;
  /** Blocks of class attention behind them. */
  readonly classDepth: number;
  /** Heads of both kinds of attention; they divide the width. */
  readonly numHeads: number;
  /** Hidden width of an MLP over D. */
  readonly mlpRatio: number;
  /** Whether queries, keys and values have biases. */
  readonly qkvBias: boolean;
  /** Of the layer norms. */
  readonly layerNormEps: number;
  /** Initial layer scale of the residual branches. */
  readonly eta: number;
  /** Whether class attention normalises all tokens or [CLS] alone; published networks do, but the nano ones. */
  readonly tokensNorm: boolean;
}

/** The published widths; each has patches of 16 and of 8. */
export const XCIT_SIZES = {
  xcit_nano_12: { embedDim: 128, depth: 12, numHeads: 4, eta: 1, tokensNorm: false },
  xcit_tiny_12: { embedDim: 192, depth: 12, numHeads: 4, eta: 1, tokensNorm: true },
  xcit_small_12: { embedDim: 384, depth: 12, numHeads: 8, eta: 1, tokensNorm: true },
  xcit_tiny_24: { embedDim: 192, depth: 24, numHeads: 4, eta: 1e-5, tokensNorm: true },
  xcit_small_24: { embedDim: 384, depth: 24, numHeads: 8, eta: 1e-5, tokensNorm: true },
  xcit_medium_24: { embedDim: 512, depth: 24, numHeads: 8, eta: 1e-5, tokensNorm: true },
  xcit_large_24: { embedDim: 768, depth: 24, numHeads: 16, eta: 1e-5, tokensNorm: true },
} as const;

/**
 * Completes a configuration with the defaults of the published networks.
 *
 * @throws {RangeError} if heads do not divide the width, or patches are no power of two that the width can be halved for
 */
export function xcitConfig(
  config: Pick<XcitConfig, "patchSize" | "embedDim" | "depth" | "numHeads"> & Partial<XcitConfig>,
): XcitConfig {
  const full = {
    imageSize: 224,
    inChannels: 3,
    classDepth: 2,
    mlpRatio: 4,
    qkvBias: true,
    layerNormEps: 1e-6,
    eta: 1,
    tokensNorm: true,
    ...config,
    family: "xcit" as const,
  };
  const { patchSize, embedDim, numHeads } = full;
  require(
    embedDim % numHeads === 0,
    "xcit",
    () => `embedDim ${embedDim} is not a multiple of numHeads ${numHeads}`,
  );
  require(
    patchSize >= 2 && Number.isInteger(Math.log2(patchSize)) && embedDim % (patchSize / 2) === 0,
    "xcit",
    () => `patchSize ${patchSize}: use a power of two, and a width that is a multiple of half of it, not ${embedDim}`,
  );
  return full;
}

/** Channels after each convolution of the stem: each twice those before it, the last the width of a token. */
function stemWidths({ patchSize, embedDim }: XcitConfig): number[] {
  const count = Math.log2(patchSize);
  return Array.from({ length: count }, (_, i) => embedDim / 2 ** (count - 1 - i));
}

/** Names and shapes of all parameters, in the order of the published checkpoints. */
export function xcitShapes(c: XcitConfig): [name: string, shape: number[]][] {
  const { embedDim: D, numHeads } = c, hidden = D * c.mlpRatio;
  const norm = (
    name: string,
    width = D,
  ): [string, number[]][] => [[`${name}.weight`, [width]], [`${name}.bias`, [width]]];
  const dense = (name: string, from: number, to: number, bias = true): [string, number[]][] => [
    [`${name}.weight`, [to, from]],
    ...(bias ? [[`${name}.bias`, [to]] as [string, number[]]] : []),
  ];
  const gammas = (at: string, count: number): [string, number[]][] =>
    Array.from({ length: count }, (_, i) => [`${at}.gamma${i + 1}`, [D]]);
  const shapes: [string, number[]][] = [["cls_token", [1, 1, D]]];
  stemWidths(c).forEach((width, i, all) => {
    shapes.push([`patch_embed.proj.${2 * i}.0.weight`, [width, i === 0 ? c.inChannels : all[i - 1], 3, 3]]);
    shapes.push(...norm(`patch_embed.proj.${2 * i}.1`, width));
  });
  for (let i = 0; i < c.depth; i++) {
    const at = `blocks.${i}`;
    shapes.push(...gammas(at, 3), ...norm(`${at}.norm1`), [`${at}.attn.temperature`, [numHeads, 1, 1]]);
    shapes.push(...dense(`${at}.attn.qkv`, D, 3 * D, c.qkvBias), ...dense(`${at}.attn.proj`, D, D));
    shapes.push(...norm(`${at}.norm2`), ...dense(`${at}.mlp.fc1`, D, hidden), ...dense(`${at}.mlp.fc2`, hidden, D));
    shapes.push(...norm(`${at}.norm3`));
    shapes.push([`${at}.local_mp.conv1.weight`, [D, 1, 3, 3]], [`${at}.local_mp.conv1.bias`, [D]]);
    shapes.push(...norm(`${at}.local_mp.bn`));
    shapes.push([`${at}.local_mp.conv2.weight`, [D, 1, 3, 3]], [`${at}.local_mp.conv2.bias`, [D]]);
  }
  for (let i = 0; i < c.classDepth; i++) {
    const at = `cls_attn_blocks.${i}`;
    shapes.push(...gammas(at, 2), ...norm(`${at}.norm1`), ...dense(`${at}.attn.qkv`, D, 3 * D, c.qkvBias));
    shapes.push(...dense(`${at}.attn.proj`, D, D), ...norm(`${at}.norm2`));
    shapes.push(...dense(`${at}.mlp.fc1`, D, hidden), ...dense(`${at}.mlp.fc2`, hidden, D));
  }
  shapes.push(...norm("norm"));
  shapes.push(["pos_embeder.token_projection.weight", [D, 2 * WAVES, 1, 1]], ["pos_embeder.token_projection.bias", [
    D,
  ]]);
  return shapes;
}

/** Names and shapes of the running statistics of the batch norms. */
export function xcitBufferShapes(c: XcitConfig): [name: string, shape: number[]][] {
  const statistics = (name: string, width: number): [string, number[]][] => [
    [`${name}.running_mean`, [width]],
    [`${name}.running_var`, [width]],
  ];
  return [
    ...stemWidths(c).flatMap((width, i) => statistics(`patch_embed.proj.${2 * i}.1`, width)),
    ...Array.from({ length: c.depth }, (_, i) => statistics(`blocks.${i}.local_mp.bn`, c.embedDim)).flat(),
  ];
}

/** Rows and columns of tokens that an image becomes: each convolution of the stem halves the sides, rounding up. */
export function xcitGrid(
  { patchSize }: Pick<XcitConfig, "patchSize">,
  height: number,
  width: number,
): [number, number] {
  let [rows, columns] = [height, width];
  for (let p = patchSize; p > 1; p /= 2) [rows, columns] = [Math.ceil(rows / 2), Math.ceil(columns / 2)];
  return [rows, columns];
}

/** Multiplications of a forward pass of one square image, in products, convolutions and attention. */
export function xcitMultiplications(c: XcitConfig, imageSize: number): number {
  const { embedDim: D, depth, classDepth, mlpRatio, numHeads } = c;
  let side = imageSize, sum = 0, channels = c.inChannels;
  for (const width of stemWidths(c)) {
    side = Math.ceil(side / 2);
    sum += side * side * 9 * channels * width;
    channels = width;
  }
  const n = side * side, mlp = 2 * mlpRatio * D * D;
  sum += n * 2 * WAVES * D;
  sum += depth * n * (4 * D * D + mlp + 2 * D * (D / numHeads) + 18 * D);
  return sum + classDepth * ((n + 1) * (3 * D * D + 2 * D) + D * D + mlp);
}

/** What to compute, and how. */
export interface XcitOptions {
  /** Batch norms take the statistics of the images, and move their running ones; otherwise they use those. */
  readonly training: boolean;
  /** Factors of the three residual branches of block i, each [images], for drop path; undefined keeps the branch. */
  readonly dropPath?: (block: number, branch: number) => Tensor | undefined;
  /** Receives the softmaxed attention of [CLS] in the last block, [B, H, 1, 1 + tokens]. */
  readonly attention?: Tensor;
}

/**
 * Features of images: [CLS] after class attention and the final norm, [images, D].
 *
 * @param batch pixels as rows, channels last: [images·height·width, inChannels]
 */
export function xcit(p: Program, params: Parameters, c: XcitConfig, batch: PatchBatch, options: XcitOptions): Tensor {
  const { training, dropPath } = options;
  const stem = embed(p, params, c, batch, training); // [B·n, D]
  const { grid } = stem, { images } = grid, tokens = grid.height * grid.width;
  const waves = tensor("waves", [tokens, 2 * WAVES], "constant", "f32", fourier(grid));
  const pos = linear(
    p,
    waves,
    params("pos_embeder.token_projection.weight"),
    params("pos_embeder.token_projection.bias"),
  );
  let x = assembleTokens(p, stem.x, undefined, pos, images);
  for (let i = 0; i < c.depth; i++) {
    const entering = x, within: Parameters = (name) => params(`blocks.${i}.${name}`);
    x = p.segment(() => block(p, within, c, entering, grid, training, (branch) => dropPath?.(i, branch)));
  }
  const nowhere = tensor(
    "nowhere",
    [1 + tokens, c.embedDim],
    "constant",
    "f32",
    new Float32Array((1 + tokens) * c.embedDim),
  );
  let patches = x, cls: Tensor = params("cls_token");
  for (let i = 0; i < c.classDepth; i++) {
    const own: Parameters = (name) => params(`cls_attn_blocks.${i}.${name}`), last = i === c.classDepth - 1;
    // Before the tokens are put together, so that there the gradient of the patches is written and here added to.
    const next = last ? patches : handOn(p, own, c, patches);
    const all = assembleTokens(p, patches, cls, nowhere, images); // [B·(1 + n), D]
    const into = last ? options.attention : undefined;
    cls = classAttention(p, own, c, all, { images, tokens: 1 + tokens, attention: into });
    patches = next;
  }
  return layerNorm(p, cls, params("norm.weight"), params("norm.bias"), c.layerNormEps);
}

/** Convolutions of stride 2, each with its batch norm, and GELU between them. */
function embed(
  p: Program,
  params: Parameters,
  c: XcitConfig,
  { patches, images, height, width }: PatchBatch,
  training: boolean,
): { x: Tensor; grid: Grid } {
  let x = patches, grid: Grid = { images, height, width };
  const widths = stemWidths(c);
  for (let i = 0; i < widths.length; i++) {
    const at = `patch_embed.proj.${2 * i}`;
    const made = conv2d(p, x, grid, params(`${at}.0.weight`), { stride: 2, padding: 1 });
    x = norm2d(p, params, `${at}.1`, made.y, training);
    if (i < widths.length - 1) x = gelu(p, x);
    grid = made.grid;
  }
  return { x, grid };
}

/** Batch norm over all pixels of all images. */
function norm2d(p: Program, params: Parameters, at: string, x: Tensor, training: boolean): Tensor {
  return batchNorm(p, x, {
    weight: params(`${at}.weight`),
    bias: params(`${at}.bias`),
    runningMean: params(`${at}.running_mean`),
    runningVar: params(`${at}.running_var`),
  }, { training });
}

/** x + γ₁·XCA(norm1 x), then x + γ₃·LPI(norm3 x), then x + γ₂·MLP(norm2 x). */
function block(
  p: Program,
  params: Parameters,
  c: XcitConfig,
  x: Tensor,
  grid: Grid,
  training: boolean,
  drop: (branch: number) => Tensor | undefined,
): Tensor {
  const heads = c.numHeads, { images } = grid, tokens = grid.height * grid.width;
  const norm = (name: string, x: Tensor) =>
    layerNorm(p, x, params(`${name}.weight`), params(`${name}.bias`), c.layerNormEps);
  const dense = (name: string, x: Tensor) => linear(p, x, params(`${name}.weight`), params(`${name}.bias`));
  const qkv = linear(p, norm("norm1", x), params("attn.qkv.weight"), c.qkvBias ? params("attn.qkv.bias") : undefined);
  const mixed = crossCovariance(p, qkv, params("attn.temperature"), { images, tokens, heads });
  const attended = layerScale(p, dense("attn.proj", mixed), params("gamma1"), { residual: x, rowScale: drop(0) });
  const window = (name: string, x: Tensor) =>
    depthwiseConv(p, x, grid, params(`${name}.weight`), params(`${name}.bias`));
  const near = norm2d(p, params, "local_mp.bn", gelu(p, window("local_mp.conv1", norm("norm3", attended))), training);
  const local = layerScale(p, window("local_mp.conv2", near), params("gamma3"), {
    residual: attended,
    rowScale: drop(1),
  });
  const hidden = linear(p, norm("norm2", local), params("mlp.fc1.weight"), params("mlp.fc1.bias"), { gelu: true });
  return layerScale(p, dense("mlp.fc2", hidden), params("gamma2"), { residual: local, rowScale: drop(2) });
}

/** [CLS] attends to all tokens, [B·(1 + n), D], and goes through an MLP: [B, D]. */
function classAttention(
  p: Program,
  params: Parameters,
  c: XcitConfig,
  all: Tensor,
  { images, tokens, attention: into }: { images: number; tokens: number; attention?: Tensor },
): Tensor {
  const norm = (name: string, x: Tensor) =>
    layerNorm(p, x, params(`${name}.weight`), params(`${name}.bias`), c.layerNormEps);
  const qkv = linear(p, norm("norm1", all), params("attn.qkv.weight"), c.qkvBias ? params("attn.qkv.bias") : undefined);
  const attrs = { images, tokens, heads: c.numHeads, queries: 1 };
  if (into) attentionProbs(p, qkv, { ...attrs, firstQuery: 0 }, into);
  const seen = linear(p, attention(p, qkv, attrs), params("attn.proj.weight"), params("attn.proj.bias")); // [B, D]
  const own = gatherRows(p, all, { stride: tokens, count: images });
  const attended = norm("norm2", layerScale(p, seen, params("gamma1"), { residual: own }));
  const hidden = linear(p, attended, params("mlp.fc1.weight"), params("mlp.fc1.bias"), { gelu: true });
  const out = linear(p, hidden, params("mlp.fc2.weight"), params("mlp.fc2.bias"));
  return layerScale(p, out, params("gamma2"), { residual: attended });
}

/**
 * What a block of class attention makes of the patches, [B·n, D], for the next one: where attention gives [CLS] its sum, it hands
 * their normed selves on, and the second residual adds them to themselves.
 */
function handOn(p: Program, params: Parameters, c: XcitConfig, patches: Tensor): Tensor {
  const norm = (name: string, x: Tensor) =>
    layerNorm(p, x, params(`${name}.weight`), params(`${name}.bias`), c.layerNormEps);
  const moved = layerScale(p, norm("norm1", patches), params("gamma1"), { residual: patches });
  const normed = c.tokensNorm ? norm("norm2", moved) : moved;
  const two = tensor("two", [c.embedDim], "constant", "f32", new Float32Array(c.embedDim).fill(2));
  return layerScale(p, normed, two);
}

/** Sines and cosines of each axis. */
const WAVES = 32;
/** The longest wave is about this many times the shortest. */
const LONGEST = 10000;
/** Keeps the division away from 0, as the published encoding has it. */
const EPS = 1e-6;

/** Positions as waves [height·width, 64]: 32 of the row, then 32 of the column, sines and cosines in turn. */
export function fourier({ height, width }: Pick<Grid, "height" | "width">): Float32Array {
  const waves = new Float32Array(height * width * 2 * WAVES);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const places = [(y + 1) / (height + EPS), (x + 1) / (width + EPS)];
      for (let w = 0; w < 2 * WAVES; w++) {
        const i = w % WAVES,
          angle = places[w < WAVES ? 0 : 1] * 2 * Math.PI / LONGEST ** (2 * Math.floor(i / 2) / WAVES);
        waves[(y * width + x) * 2 * WAVES + w] = i % 2 === 0 ? Math.sin(angle) : Math.cos(angle);
      }
    }
  }
  return waves;
}
