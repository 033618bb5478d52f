// A Vision Transformer as an ONNX model: any batch, any image size (or a fixed one), the last attention if wanted.

import type { VitConfig } from "../vit.ts";
import { type OnnxExtent, OnnxFloat, OnnxGraph } from "./onnx_graph.ts";
import { extent, gelu, layerNorm, linear } from "./onnx_layers.ts";
import type { TensorToWrite } from "./safetensors.ts";
import { VIT_KEY } from "./vit_weights.ts";

/** What the model takes and gives besides features. */
export interface OnnxOptions {
  /** Only square images of the size the position embedding is made for; otherwise any size of at least a patch. */
  readonly fixedSize?: boolean;
  /** Adds the output `attention`, [batch, heads, tokens, tokens], softmaxed, of the last block. */
  readonly attention?: boolean;
}

/**
 * Writes a model with the input `pixel_values` [batch, channels, height, width], normalised as in training, and the outputs
 * `features` [batch, D] (the class token) and `last_hidden_state` [batch, tokens, D], both after the final norm.
 * Weights keep their published names. Position embeddings are resampled inside, as the reference does.
 *
 * @param tensors of the backbone by published names without `backbone.`, float32
 * @throws {RangeError} if it would be larger than an ONNX file can be
 */
export async function writeVitOnnx(
  path: string,
  config: VitConfig,
  tensors: readonly TensorToWrite[],
  options: OnnxOptions = {},
): Promise<void> {
  await vitGraph(config, tensors, options).write(path, { [VIT_KEY]: JSON.stringify(config) });
}

function vitGraph(c: VitConfig, tensors: readonly TensorToWrite[], { fixedSize, attention }: OnnxOptions): OnnxGraph {
  const { embedDim: D, numHeads: H, patchSize: p } = c;
  const g = new OnnxGraph("vit");
  for (const tensor of tensors) g.tensor(tensor);
  const side = Math.floor(c.imageSize / p);
  const tokens: OnnxExtent = fixedSize ? side * side + 1 + (c.registers ?? 0) : "tokens";
  const size: OnnxExtent[] = fixedSize ? [c.imageSize, c.imageSize] : ["height", "width"];
  const image = g.input("pixel_values", ["batch", c.inChannels, ...size]);

  const patches = g.node("Conv", [image, "patch_embed.proj.weight", "patch_embed.proj.bias"], {
    kernel_shape: [p, p],
    strides: [p, p],
  }); // [B, D, gridH, gridW]
  const pos = fixedSize ? "pos_embed" : positions(g, c, image, patches);
  const rows = g.node("Transpose", [g.node("Reshape", [patches, g.integers([0, D, -1])])], { perm: [0, 2, 1] });
  const batch = g.node("Slice", [g.node("Shape", [patches]), g.integers([0]), g.integers([1])]);
  const wanted = g.node("Concat", [batch, g.integers([1, D])], { axis: 0 });
  const cls = g.node("Expand", ["cls_token", wanted]);
  let x = g.node("Add", [g.node("Concat", [cls, rows], { axis: 1 }), pos]); // [B, N, D]
  if (c.registers) {
    const part = (first: number, end: number) =>
      g.node("Slice", [x, g.integers([first]), g.integers([end]), g.integers([1])]);
    const each = g.node("Expand", [
      "register_tokens",
      g.node("Concat", [batch, g.integers([c.registers, D])], { axis: 0 }),
    ]);
    x = g.node("Concat", [part(0, 1), each, part(1, 2 ** 31 - 1)], { axis: 1 }); // registers have no position
  }

  const dense = (input: string, name: string, bias = true) => linear(g, input, name, bias);
  const norm = (input: string, name: string, output?: string) => layerNorm(g, input, name, c.layerNormEps, output);
  for (let i = 0; i < c.depth; i++) {
    const at = `blocks.${i}`;
    const qkv = dense(norm(x, `${at}.norm1`), `${at}.attn.qkv`, c.qkvBias);
    const split = g.node("Reshape", [qkv, g.integers([0, 0, 3, H, D / H])]);
    const parts = g.node("Transpose", [split], { perm: [2, 0, 3, 1, 4] }); // [3, B, H, N, D/H]
    const [q, k, v] = [0, 1, 2].map((part) => g.node("Gather", [parts, g.integers(part)], { axis: 0 }));
    const scores = g.node("MatMul", [q, g.node("Transpose", [k], { perm: [0, 1, 3, 2] })]);
    const scaled = g.node("Mul", [scores, g.float((D / H) ** -0.5)]);
    const shown = attention && i === c.depth - 1;
    const probs = g.node("Softmax", [scaled], { axis: -1 }, shown ? "attention" : undefined); // [B, H, N, N]
    if (shown) g.output("attention", ["batch", H, tokens, tokens]);
    const mixed = g.node("Transpose", [g.node("MatMul", [probs, v])], { perm: [0, 2, 1, 3] });
    x = g.node("Add", [x, dense(g.node("Reshape", [mixed, g.integers([0, 0, D])]), `${at}.attn.proj`)]);
    const hidden = gelu(g, dense(norm(x, `${at}.norm2`), `${at}.mlp.fc1`));
    x = g.node("Add", [x, dense(hidden, `${at}.mlp.fc2`)]);
  }
  const last = norm(x, "norm", "last_hidden_state");
  g.output("last_hidden_state", ["batch", tokens, D]);
  g.node("Gather", [last, g.integers(0)], { axis: 1 }, "features");
  g.output("features", ["batch", D]);
  return g;
}

/** The position embedding as it is for a square image of the native number of patches, else resampled bicubically. */
function positions(g: OnnxGraph, c: VitConfig, image: string, patches: string): string {
  const D = c.embedDim, side = Math.floor(c.imageSize / c.patchSize);
  const gridH = extent(g, patches, 2), gridW = extent(g, patches, 3);
  const count = g.node("Equal", [g.node("Mul", [gridH, gridW]), g.integers(side * side)]);
  const native = g.node("And", [count, g.node("Equal", [extent(g, image, 2), extent(g, image, 3)])]);

  const as = new OnnxGraph("vit.native");
  as.output(as.node("Identity", ["pos_embed"]));

  const to = new OnnxGraph("vit.resampled");
  // The scale (grid + 0.1)/side drives the coordinates as well, as in the reference.
  const scale = (grid: string) =>
    to.node("Unsqueeze", [
      to.node("Div", [to.node("Add", [to.node("Cast", [grid], { to: 1 }), to.float(0.1)]), to.float(side)]),
      to.integers([0]),
    ]);
  const ones = to.node("Cast", [to.integers([1, 1])], { to: 1 });
  const scales = to.node("Concat", [ones, scale(gridH), scale(gridW)], { axis: 0 });
  const part = (first: number, end: number) =>
    to.node("Slice", ["pos_embed", to.integers([first]), to.integers([end]), to.integers([1])]);
  const grid = to.node("Reshape", [part(1, side * side + 1), to.integers([1, side, side, D])]);
  const resized = to.node("Resize", [to.node("Transpose", [grid], { perm: [0, 3, 1, 2] }), "", scales], {
    mode: "cubic",
    cubic_coeff_a: new OnnxFloat(-0.75), // PyTorch's
    coordinate_transformation_mode: "half_pixel",
  });
  const rows = to.node("Reshape", [
    to.node("Transpose", [resized], { perm: [0, 2, 3, 1] }),
    to.integers([1, -1, D]),
  ]);
  to.output(to.node("Concat", [part(0, 1), rows], { axis: 1 }));
  return g.node("If", [native], { then_branch: as, else_branch: to });
}
