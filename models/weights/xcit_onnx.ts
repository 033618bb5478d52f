// An XCiT as an ONNX model: any batch, any image size or a fixed one.

import type { XcitConfig } from "../xcit.ts";
import { type OnnxExtent, OnnxGraph } from "./onnx_graph.ts";
import { batchNorm, extent, gelu, layerNorm, linear } from "./onnx_layers.ts";
import type { OnnxOptions } from "./onnx_write.ts";
import type { TensorToWrite } from "./safetensors.ts";
import { VIT_KEY } from "./vit_weights.ts";

/**
 * Writes a model with the input `pixel_values` [batch, channels, height, width], normalised as in training, and the outputs
 * `features` [batch, embedDim], `last_hidden_state` [batch, 1 + tokens, embedDim], whose first token they are, and `attention`
 * [batch, heads, 1, 1 + tokens] of [CLS] in the last block, if it is wanted. Weights keep their published names.
 *
 * @param tensors of the backbone without `backbone.`, float32, running statistics among them
 * @throws {RangeError} if it would be larger than an ONNX file can be
 */
export async function writeXcitOnnx(
  path: string,
  config: XcitConfig,
  tensors: readonly TensorToWrite[],
  { fixedSize = false, attention = false }: OnnxOptions = {},
): Promise<void> {
  const g = new OnnxGraph("xcit");
  for (const tensor of tensors) g.tensor(tensor);
  const { embedDim: D, layerNormEps: eps } = config;
  const size: OnnxExtent[] = fixedSize ? [config.imageSize, config.imageSize] : ["height", "width"];
  const map = stem(g, config, g.input("pixel_values", ["batch", config.inChannels, ...size])); // [B, D, gridH, gridW]
  const grid = { rows: extent(g, map, 2), columns: extent(g, map, 3), shape: g.node("Shape", [map]) };
  let x = g.node("Add", [asTokens(g, map, D), positions(g, grid)]); // [B, n, D]
  for (let i = 0; i < config.depth; i++) x = block(g, config, `blocks.${i}`, x, grid.shape);
  const first = g.node("Slice", [grid.shape, g.integers([0]), g.integers([1])]);
  const cls = g.node("Expand", ["cls_token", g.node("Concat", [first, g.integers([1, D])], { axis: 0 })]);
  x = g.node("Concat", [cls, x], { axis: 1 }); // [B, 1 + n, D]
  for (let i = 0; i < config.classDepth; i++) {
    x = classBlock(g, config, `cls_attn_blocks.${i}`, x, attention && i === config.classDepth - 1);
  }
  const last = layerNorm(g, x, "norm", eps, "last_hidden_state");
  g.node("Gather", [last, g.integers(0)], { axis: 1 }, "features");
  g.output("last_hidden_state", ["batch", "tokens", D]);
  g.output("features", ["batch", D]);
  if (attention) g.output("attention", ["batch", config.numHeads, 1, "tokens"]);
  await g.write(path, { [VIT_KEY]: JSON.stringify(config) });
}

/** Convolutions of stride 2, each with its batch norm, and GELU between them. */
function stem(g: OnnxGraph, { patchSize }: XcitConfig, image: string): string {
  let x = image;
  for (let i = 0, count = Math.log2(patchSize); i < count; i++) {
    const at = `patch_embed.proj.${2 * i}`;
    const y = g.node("Conv", [x, `${at}.0.weight`], { kernel_shape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1] });
    x = batchNorm(g, y, `${at}.1`);
    if (i < count - 1) x = gelu(g, x);
  }
  return x;
}

/** [B, D, gridH, gridW] → [B, n, D] */
function asTokens(g: OnnxGraph, map: string, D: number): string {
  return g.node("Transpose", [g.node("Reshape", [map, g.integers([0, D, -1])])], { perm: [0, 2, 1] });
}

/** Sines and cosines of rows and columns, projected: [n, D]. A cosine is a sine a quarter turn on. */
function positions(g: OnnxGraph, { rows, columns }: { rows: string; columns: string }): string {
  const steps = Array.from({ length: 32 }, (_, i) => 2 * Math.PI / 10000 ** (2 * Math.floor(i / 2) / 32));
  const turns = Array.from({ length: 32 }, (_, i) => i % 2 === 0 ? 0 : Math.PI / 2);
  const waves = (count: string) => { // [count, 32]
    const one = g.integers(1);
    const places = g.node("Cast", [g.node("Range", [one, g.node("Add", [count, one]), one])], { to: 1 });
    const share = g.node("Div", [places, g.node("Add", [g.node("Cast", [count], { to: 1 }), g.float(1e-6)])]);
    const angles = g.node("Mul", [g.node("Unsqueeze", [share, g.integers([1])]), g.floats(steps)]);
    return g.node("Sin", [g.node("Add", [angles, g.floats(turns)])]);
  };
  const list = (value: string) => g.node("Unsqueeze", [value, g.integers([0])]);
  const whole = g.node("Concat", [list(rows), list(columns), g.integers([32])], { axis: 0 });
  const spread = (value: string, axis: number) =>
    g.node("Expand", [g.node("Unsqueeze", [value, g.integers([axis])]), whole]);
  const all = g.node("Concat", [spread(waves(rows), 1), spread(waves(columns), 0)], { axis: 2 }); // [gridH, gridW, 64]
  const name = "pos_embeder.token_projection";
  const weight = g.node("Flatten", [`${name}.weight`], { axis: 1 });
  const flat = g.node("Reshape", [all, g.integers([-1, 64])]);
  return g.node("Add", [g.node("MatMul", [flat, g.node("Transpose", [weight], { perm: [1, 0] })]), `${name}.bias`]);
}

/** x + γ·y */
function scaled(g: OnnxGraph, x: string, y: string, gamma: string): string {
  return g.node("Add", [x, g.node("Mul", [y, gamma])]);
}

/** Queries, keys and values of heads, with the axes [3, B, H, …] in the order of `perm`. */
function heads(g: OnnxGraph, c: XcitConfig, at: string, x: string, perm: number[]): string[] {
  const qkv = linear(g, x, `${at}.attn.qkv`, c.qkvBias);
  const split = g.node("Reshape", [qkv, g.integers([0, 0, 3, c.numHeads, c.embedDim / c.numHeads])]);
  const parts = g.node("Transpose", [split], { perm });
  return [0, 1, 2].map((part) => g.node("Gather", [parts, g.integers(part)], { axis: 0 }));
}

function mlp(g: OnnxGraph, at: string, x: string): string {
  return linear(g, gelu(g, linear(g, x, `${at}.mlp.fc1`)), `${at}.mlp.fc2`);
}

function block(g: OnnxGraph, c: XcitConfig, at: string, x: string, map: string): string {
  const { embedDim: D, layerNormEps: eps } = c;
  const [q, k, v] = heads(g, c, at, layerNorm(g, x, `${at}.norm1`, eps), [2, 0, 3, 4, 1]); // [B, H, d, n]
  const unit = (t: string) => {
    const norm = g.node("ReduceL2", [t], { axes: [-1], keepdims: 1 });
    return g.node("Div", [t, g.node("Max", [norm, g.float(1e-12)])]);
  };
  const cosines = g.node("MatMul", [unit(q), g.node("Transpose", [unit(k)], { perm: [0, 1, 3, 2] })]);
  const probs = g.node("Softmax", [g.node("Mul", [cosines, `${at}.attn.temperature`])], { axis: -1 });
  const mixed = g.node("Transpose", [g.node("MatMul", [probs, v])], { perm: [0, 3, 1, 2] }); // [B, n, H, d]
  const joined = linear(g, g.node("Reshape", [mixed, g.integers([0, 0, D])]), `${at}.attn.proj`);
  x = scaled(g, x, joined, `${at}.gamma1`);

  const channels = g.node("Transpose", [layerNorm(g, x, `${at}.norm3`, eps)], { perm: [0, 2, 1] });
  const window = (y: string, name: string) =>
    g.node("Conv", [y, `${at}.local_mp.${name}.weight`, `${at}.local_mp.${name}.bias`], {
      kernel_shape: [3, 3],
      pads: [1, 1, 1, 1],
      group: D,
    });
  const near = batchNorm(g, gelu(g, window(g.node("Reshape", [channels, map]), "conv1")), `${at}.local_mp.bn`);
  x = scaled(g, x, asTokens(g, window(near, "conv2"), D), `${at}.gamma3`);

  return scaled(g, x, mlp(g, at, layerNorm(g, x, `${at}.norm2`, eps)), `${at}.gamma2`);
}

function classBlock(g: OnnxGraph, c: XcitConfig, at: string, x: string, shown: boolean): string {
  const { embedDim: D, layerNormEps: eps, numHeads: H } = c;
  const first = (t: string) => g.node("Slice", [t, g.integers([0]), g.integers([1]), g.integers([1])]);
  const others = (t: string) => g.node("Slice", [t, g.integers([1]), g.integers([2 ** 31 - 1]), g.integers([1])]);
  const normed = layerNorm(g, x, `${at}.norm1`, eps);
  const [q, k, v] = heads(g, c, at, normed, [2, 0, 3, 1, 4]); // [B, H, 1 + n, d]
  const asking = g.node("Slice", [q, g.integers([0]), g.integers([1]), g.integers([2])]);
  const scores = g.node("MatMul", [asking, g.node("Transpose", [k], { perm: [0, 1, 3, 2] })]);
  const scaledScores = g.node("Mul", [scores, g.float((D / H) ** -0.5)]);
  const probs = g.node("Softmax", [scaledScores], { axis: -1 }, shown ? "attention" : undefined); // [B, H, 1, 1 + n]
  const seen = g.node("Transpose", [g.node("MatMul", [probs, v])], { perm: [0, 2, 1, 3] });
  const cls = linear(g, g.node("Reshape", [seen, g.integers([0, 0, D])]), `${at}.attn.proj`); // [B, 1, D]
  x = scaled(g, x, g.node("Concat", [cls, others(normed)], { axis: 1 }), `${at}.gamma1`);
  const again = layerNorm(g, c.tokensNorm ? x : first(x), `${at}.norm2`, eps);
  x = c.tokensNorm ? again : g.node("Concat", [again, others(x)], { axis: 1 });
  const updated = g.node("Mul", [mlp(g, at, first(x)), `${at}.gamma2`]);
  return g.node("Add", [x, g.node("Concat", [updated, others(x)], { axis: 1 })]);
}
