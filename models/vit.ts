// The Vision Transformer of DINO: parameters under their published names, and the forward pass.
import { type Program, require } from "./graph/program.ts";
import { attention, attentionProbs } from "./graph/ops/attention.ts";
import { linear } from "./graph/ops/matmul.ts";
import { layerNorm } from "./graph/ops/norm.ts";
import { assembleTokens, gatherRows, resample } from "./graph/ops/tokens.ts";
import { size, type Tensor, tensor } from "./graph/tensor.ts";
import { bicubicAxis } from "./interpolate.ts";

/** Extents and options of a ViT. */
export interface VitConfig {
  /** Side in pixels of the images whose patch grid the position embedding is made for. */
  readonly imageSize: number;
  /** Side of a patch in pixels, p. */
  readonly patchSize: number;
  /** Colour channels, C. */
  readonly inChannels: number;
  /** Width of a token, D. */
  readonly embedDim: number;
  /** Blocks. */
  readonly depth: number;
  /** Attention heads of a block; they divide the width. */
  readonly numHeads: number;
  /** Hidden width of a block's MLP over D. */
  readonly mlpRatio: number;
  /** Whether queries, keys and values have biases. */
  readonly qkvBias: boolean;
  /** DINO's ViTs use 1e-6; PyTorch's default is 1e-5. */
  readonly layerNormEps: number;
  /** Register tokens between [CLS] and the patches, as DINOv2 has them; default none, as DINO. */
  readonly registers?: number;
}

/** Widths of the published architectures; MLP ×4, head width 64. */
export const VIT_SIZES = {
  vit_tiny: { embedDim: 192, depth: 12, numHeads: 3 },
  vit_small: { embedDim: 384, depth: 12, numHeads: 6 },
  vit_base: { embedDim: 768, depth: 12, numHeads: 12 },
  vit_large: { embedDim: 1024, depth: 24, numHeads: 16 },
} as const;

/** Completes a configuration with the defaults of the reference. */
export function vitConfig(
  config: Pick<VitConfig, "patchSize" | "embedDim" | "depth" | "numHeads"> & Partial<VitConfig>,
): VitConfig {
  const full = { imageSize: 224, inChannels: 3, mlpRatio: 4, qkvBias: true, layerNormEps: 1e-6, ...config };
  require(
    full.embedDim % full.numHeads === 0,
    "vit",
    () => `embedDim ${full.embedDim} is not a multiple of numHeads ${full.numHeads}`,
  );
  require(
    full.imageSize >= full.patchSize,
    "vit",
    () => `imageSize ${full.imageSize} is smaller than patchSize ${full.patchSize}`,
  );
  return full;
}

/** Finds a parameter by its name inside the module, e.g. `blocks.0.attn.qkv.weight`. */
export type Parameters = (name: string) => Tensor;

/** Names and shapes of all parameters, in the order of the published checkpoints (150 tensors at depth 12). */
export function vitShapes(c: VitConfig): [name: string, shape: number[]][] {
  const { embedDim: D, patchSize: p, inChannels: C } = c;
  const native = Math.floor(c.imageSize / p) ** 2;
  const hidden = D * c.mlpRatio;
  const shapes: [string, number[]][] = [
    ["cls_token", [1, 1, D]],
    ["pos_embed", [1, native + 1, D]],
    ...(c.registers ? [["register_tokens", [1, c.registers, D]] as [string, number[]]] : []),
    ["patch_embed.proj.weight", [D, C, p, p]],
    ["patch_embed.proj.bias", [D]],
  ];
  for (let i = 0; i < c.depth; i++) {
    shapes.push(
      [`blocks.${i}.norm1.weight`, [D]],
      [`blocks.${i}.norm1.bias`, [D]],
      [`blocks.${i}.attn.qkv.weight`, [3 * D, D]],
      ...(c.qkvBias ? [[`blocks.${i}.attn.qkv.bias`, [3 * D]] as [string, number[]]] : []),
      [`blocks.${i}.attn.proj.weight`, [D, D]],
      [`blocks.${i}.attn.proj.bias`, [D]],
      [`blocks.${i}.norm2.weight`, [D]],
      [`blocks.${i}.norm2.bias`, [D]],
      [`blocks.${i}.mlp.fc1.weight`, [hidden, D]],
      [`blocks.${i}.mlp.fc1.bias`, [hidden]],
      [`blocks.${i}.mlp.fc2.weight`, [D, hidden]],
      [`blocks.${i}.mlp.fc2.bias`, [D]],
    );
  }
  shapes.push(["norm.weight", [D]], ["norm.bias", [D]]);
  return shapes;
}

/** Images already cut into patches (by the augmentation kernel or `patchify`). */
export interface PatchBatch {
  /** [images·gridH·gridW, C·p·p] */
  readonly patches: Tensor;
  /** B. */
  readonly images: number;
  /** Pixels, before any ragged edge was dropped. */
  readonly height: number;
  /** Pixels. */
  readonly width: number;
}

/** What to compute besides the tokens. */
export interface VitOptions {
  /**
   * Only the last [CLS] is wanted: the last block then asks with that token alone, which changes nothing in the
   * result and saves most of a block.
   */
  readonly clsOnly?: boolean;
  /** Factors of the two residual branches of block i, each [images], for drop path; undefined keeps the branch. */
  readonly dropPath?: (block: number, branch: number) => Tensor | undefined;
  /**
   * Receives the softmaxed attention of the last block, [B, H, queries, N] (see `attentionProbs`): all tokens ask, or as
   * many as its shape has room for, so that looking at [CLS] alone needs no N × N matrix.
   */
  readonly attention?: Tensor;
  /** The first token that asks in `attention`; default 0, which is [CLS]. */
  readonly firstQuery?: number;
}

/** Tokens of a forward pass, before the final norm. */
export interface VitResult {
  /** Outputs of every block: [images·tokens, D]; the last is [images, D] when `clsOnly`. */
  readonly blocks: Tensor[];
  /** Position embedding that was added, [tokens, D]. */
  readonly pos: Tensor;
  /** N, [CLS] included. */
  readonly tokens: number;
}

/** Patch embedding and all blocks. Feed `blocks.at(-1)` to {@link finalNorm}. */
export function vit(
  p: Program,
  params: Parameters,
  c: VitConfig,
  batch: PatchBatch,
  options: VitOptions = {},
): VitResult {
  const { images, height, width } = batch;
  const gridH = Math.floor(height / c.patchSize), gridW = Math.floor(width / c.patchSize);
  const embedded = linear(p, batch.patches, params("patch_embed.proj.weight"), params("patch_embed.proj.bias")); // [B·n, D]
  const pos = positionEmbedding(p, params("pos_embed"), c, height, width);
  const leading = c.registers
    ? withRegisters(p, params("cls_token"), params("register_tokens"), pos)
    : { lead: params("cls_token"), pos };
  let x = assembleTokens(p, embedded, leading.lead, leading.pos, images); // [B·N, D]
  const tokens = patchesFrom(c) + gridH * gridW;
  const blocks: Tensor[] = [];
  for (let i = 0; i < c.depth; i++) {
    const last = i === c.depth - 1;
    const entering = x;
    x = p.segment(() =>
      block(p, (name) => params(`blocks.${i}.${name}`), c, entering, {
        images,
        tokens,
        queries: last && options.clsOnly ? 1 : tokens,
        drop: (branch) => options.dropPath?.(i, branch),
        attention: last ? options.attention : undefined,
        firstQuery: options.firstQuery ?? 0,
      })
    );
    blocks.push(x);
  }
  return { blocks, pos, tokens };
}

/** The first patch among the tokens of an image: behind [CLS] and the registers. */
export function patchesFrom(c: Pick<VitConfig, "registers">): number {
  return 1 + (c.registers ?? 0);
}

/** [CLS] and registers as leading tokens, and positions with none for the registers. */
function withRegisters(p: Program, cls: Tensor, registers: Tensor, pos: Tensor): { lead: Tensor; pos: Tensor } {
  const [, R, D] = registers.shape;
  const n = size(pos) / D - 1;
  const lead = p.activation("cls and registers", [1 + R, D]);
  gatherRows(p, cls, { count: 1 }, lead);
  gatherRows(p, registers, { count: R, target: 1 }, lead);
  const nowhere = tensor("nowhere", [R, D], "constant", "f32", new Float32Array(R * D));
  const placed = p.activation("pos with registers", [1 + R + n, D]);
  gatherRows(p, pos, { count: 1 }, placed);
  gatherRows(p, nowhere, { count: R, target: 1 }, placed);
  gatherRows(p, pos, { start: 1, count: n, target: 1 + R }, placed);
  return { lead, pos: placed };
}

/** The shared final layer norm, applied to any block's tokens. */
export function finalNorm(p: Program, params: Parameters, c: VitConfig, x: Tensor): Tensor {
  return layerNorm(p, x, params("norm.weight"), params("norm.bias"), c.layerNormEps);
}

interface BlockOptions {
  images: number;
  tokens: number;
  queries: number;
  drop: (branch: 0 | 1) => Tensor | undefined;
  attention?: Tensor;
  firstQuery: number;
}

/** x + attn(norm1(x)), then x + mlp(norm2(x)); the first `queries` tokens of each image go on. */
function block(p: Program, params: Parameters, c: VitConfig, x: Tensor, o: BlockOptions): Tensor {
  const { images, tokens, queries } = o;
  const heads = c.numHeads;
  const normed = layerNorm(p, x, params("norm1.weight"), params("norm1.bias"), c.layerNormEps);
  const qkv = linear(p, normed, params("attn.qkv.weight"), c.qkvBias ? params("attn.qkv.bias") : undefined); // [B·N, 3·D]
  if (o.attention) {
    const asked = { images, tokens, heads, queries: o.attention.shape[2], firstQuery: o.firstQuery };
    attentionProbs(p, qkv, asked, o.attention);
  }
  const mixed = attention(p, qkv, { images, tokens, heads, queries }); // [B·queries, D]
  const asking = queries === tokens ? x : gatherRows(p, x, { stride: tokens, count: images });
  const attended = linear(p, mixed, params("attn.proj.weight"), params("attn.proj.bias"), {
    residual: asking,
    rowScale: o.drop(0),
  });
  const again = layerNorm(p, attended, params("norm2.weight"), params("norm2.bias"), c.layerNormEps);
  const hidden = linear(p, again, params("mlp.fc1.weight"), params("mlp.fc1.bias"), { gelu: true }); // [B·queries, 4·D]
  return linear(p, hidden, params("mlp.fc2.weight"), params("mlp.fc2.bias"), {
    residual: attended,
    rowScale: o.drop(1),
  });
}

/**
 * The position embedding for an image of this size, [tokens, D]. The reference leaves it alone only for a square image with
 * the native number of patches; otherwise it resamples bicubically with scale (grid + 0.1)/√native on each axis, and that
 * scale, not the ratio of the sizes, drives the sampling coordinates. The row of [CLS] is never resampled.
 */
function positionEmbedding(p: Program, posEmbed: Tensor, c: VitConfig, height: number, width: number): Tensor {
  const side = Math.floor(c.imageSize / c.patchSize);
  const gridH = Math.floor(height / c.patchSize), gridW = Math.floor(width / c.patchSize);
  if (gridH * gridW === side * side && height === width) return posEmbed;
  return resample(
    p,
    posEmbed,
    bicubicAxis(side, gridH, (gridH + 0.1) / side),
    bicubicAxis(side, gridW, (gridW + 0.1) / side),
    1,
  );
}
