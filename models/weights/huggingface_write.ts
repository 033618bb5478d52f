// Writes a Vision Transformer as a folder that transformers loads: config, preprocessing, weights under its names.

import { join } from "node:path";
import { IMAGENET_NORMALIZATION } from "../graph/ops/augment.ts";
import type { VitConfig } from "../vit.ts";
import { writeTextAtomically } from "./atomic_file.ts";
import { type TensorToWrite, writeSafetensors } from "./safetensors.ts";
import { ELEMENT_BYTES, elementCount } from "./tensor_file.ts";

/** Pillow's number of the bicubic filter. */
const BICUBIC = 3;

/**
 * Writes `config.json`, `preprocessor_config.json` and `model.safetensors` (last, so that a folder with weights is whole).
 *
 * @param tensors of the backbone by published names without `backbone.`
 */
export async function writeHuggingFace(
  folder: string,
  config: VitConfig,
  tensors: readonly TensorToWrite[],
): Promise<void> {
  await Deno.mkdir(folder, { recursive: true });
  const json = (name: string, value: unknown) =>
    writeTextAtomically(join(folder, name), `${JSON.stringify(value, null, 2)}\n`);
  await json("config.json", {
    architectures: ["ViTModel"],
    model_type: "vit",
    hidden_size: config.embedDim,
    num_hidden_layers: config.depth,
    num_attention_heads: config.numHeads,
    intermediate_size: Math.round(config.embedDim * config.mlpRatio),
    hidden_act: "gelu",
    hidden_dropout_prob: 0,
    attention_probs_dropout_prob: 0,
    initializer_range: 0.02,
    layer_norm_eps: config.layerNormEps,
    image_size: config.imageSize,
    patch_size: config.patchSize,
    num_channels: config.inChannels,
    qkv_bias: config.qkvBias,
    torch_dtype: { F16: "float16", BF16: "bfloat16" }[tensors[0]?.dtype as string] ?? "float32",
  });
  const size = { height: config.imageSize, width: config.imageSize };
  await json("preprocessor_config.json", {
    image_processor_type: "ViTImageProcessor",
    do_resize: true,
    size,
    resample: BICUBIC,
    do_rescale: true,
    rescale_factor: 1 / 255,
    do_normalize: true,
    image_mean: IMAGENET_NORMALIZATION.mean,
    image_std: IMAGENET_NORMALIZATION.deviation,
  });
  await writeSafetensors(join(folder, "model.safetensors"), tensors.flatMap(toHuggingFace), { format: "pt" });
}

const NAMES: readonly (readonly [RegExp, string])[] = [
  [/^cls_token$/, "embeddings.cls_token"],
  [/^pos_embed$/, "embeddings.position_embeddings"],
  [/^patch_embed\.proj\./, "embeddings.patch_embeddings.projection."],
  [/^blocks\.(\d+)\.norm1\./, "encoder.layer.$1.layernorm_before."],
  [/^blocks\.(\d+)\.norm2\./, "encoder.layer.$1.layernorm_after."],
  [/^blocks\.(\d+)\.attn\.proj\./, "encoder.layer.$1.attention.output.dense."],
  [/^blocks\.(\d+)\.mlp\.fc1\./, "encoder.layer.$1.intermediate.dense."],
  [/^blocks\.(\d+)\.mlp\.fc2\./, "encoder.layer.$1.output.dense."],
  [/^norm\./, "layernorm."],
];

/** A tensor under transformers' names: queries, keys and values are three there. */
function toHuggingFace(tensor: TensorToWrite): TensorToWrite[] {
  const qkv = /^blocks\.(\d+)\.attn\.qkv\.(weight|bias)$/.exec(tensor.name);
  if (!qkv) {
    for (const [pattern, theirs] of NAMES) {
      if (pattern.test(tensor.name)) return [{ ...tensor, name: tensor.name.replace(pattern, theirs) }];
    }
    throw new TypeError(`"${tensor.name}": transformers' ViT has no such tensor`);
  }
  const shape = [tensor.shape[0] / 3, ...tensor.shape.slice(1)];
  const bytes = elementCount(shape) * ELEMENT_BYTES[tensor.dtype];
  return ["query", "key", "value"].map((part, i) => ({
    name: `encoder.layer.${qkv[1]}.attention.attention.${part}.${qkv[2]}`,
    dtype: tensor.dtype,
    shape,
    bytes: async () => (await tensor.bytes()).subarray(i * bytes, (i + 1) * bytes),
  }));
}
