// Kinds vit_forward, vit_backward and multicrop.
import { differentiate } from "../../../models/graph/autodiff.ts";
import type { Backend } from "../../../models/graph/backend.ts";
import { patchify } from "../../../models/graph/ops/tokens.ts";
import { Program } from "../../../models/graph/program.ts";
import { tensor } from "../../../models/graph/tensor.ts";
import { headBufferShapes, headConfig } from "../../../models/dino_head.ts";
import type { PatchGroup } from "../../../models/backbone.ts";
import { multiCrop, networkShapes } from "../../../models/dino_network.ts";
import { finalNorm, type PatchBatch, vit, type VitConfig, vitConfig, vitShapes } from "../../../models/vit.ts";
import type { GoldenCase } from "../golden_case.ts";
import { input, loadParameters, output, runOnce } from "../run_program.ts";

// deno-lint-ignore no-explicit-any
export function backboneOf(c: any): VitConfig {
  return vitConfig({
    imageSize: c.img_size,
    patchSize: c.patch_size,
    inChannels: c.in_chans,
    embedDim: c.embed_dim,
    depth: c.depth,
    numHeads: c.num_heads,
    mlpRatio: c.mlp_ratio,
    qkvBias: c.qkv_bias,
    layerNormEps: c.ln_eps,
  });
}

export async function vitForward(golden: GoldenCase, backend: Backend) {
  const c = backboneOf(golden.config);
  const { parameters } = loadParameters(backend, golden, "param.", vitShapes(c));
  for (const { key } of golden.config.inputs) {
    const p = new Program(`vit ${key}`);
    const [images, , height, width] = golden.shape(`input.${key}`);
    const image = input(backend, "image", golden.shape(`input.${key}`), golden.floats(`input.${key}`));
    const attention = tensor("attn", golden.shape(`output.${key}.attn`), "output");
    const batch: PatchBatch = { patches: patchify(p, image, c.patchSize), images, height, width };
    const { blocks, pos } = vit(p, parameters, c, batch, { attention });
    const firstLayer = c.depth - golden.config.n_intermediate;
    const layers = blocks.slice(firstLayer).map((x) => output(p, finalNorm(p, parameters, c, x)));
    // The shortcut of training, which lets [CLS] alone through the last block, must give the same features.
    const shortcut = vit(p, parameters, c, batch, { clsOnly: true }).blocks.at(-1)!;
    const cls = output(p, finalNorm(p, parameters, c, shortcut));
    const added = output(p, pos);
    await runOnce(backend, p);
    golden.compare(`output.${key}.pos`, await backend.read(added));
    golden.compare(`output.${key}.cls`, await backend.read(cls));
    golden.compare(`output.${key}.attn`, await backend.read(attention));
    for (const [i, layer] of layers.entries()) golden.compare(`output.${key}.layer${i}`, await backend.read(layer));
  }
}

export async function vitBackward(golden: GoldenCase, backend: Backend) {
  const c = backboneOf(golden.config);
  const { parameters, gradients, arena } = loadParameters(backend, golden, "param.", vitShapes(c));
  for (const { key } of golden.config.inputs) {
    const p = new Program(`vit backward ${key}`);
    const [images, , height, width] = golden.shape(`input.${key}`);
    const image = input(backend, "image", golden.shape(`input.${key}`), golden.floats(`input.${key}`));
    const cotangent = input(backend, "cotangent", golden.shape(`cotangent.${key}`), golden.floats(`cotangent.${key}`));
    const dimage = tensor("d(image)", image.shape, "output");
    const { blocks } = vit(p, parameters, c, { patches: patchify(p, image, c.patchSize), images, height, width }, {
      clsOnly: true,
    });
    const features = finalNorm(p, parameters, c, blocks.at(-1)!);
    const cls = output(p, features);
    differentiate(p, {
      seeds: [[features, cotangent]],
      wrt: [[image, dimage], ...arena.segments.map((s) => [arena.get(s.name), gradients.get(s.name)] as const)],
    });
    await runOnce(backend, p);
    const got = await backend.read(cls);
    golden.compare(`output.${key}.cls`, got);
    golden.compareScalar(`loss.${key}`, golden.data(`cotangent.${key}`).reduce((sum, v, i) => sum + v * got[i], 0));
    golden.compare(`grad.${key}.input`, await backend.read(dimage));
    for (const { name } of arena.segments) {
      golden.compare(`grad.${key}.${name}`, await backend.read(gradients.get(name)));
    }
  }
}

export async function multicrop(golden: GoldenCase, backend: Backend) {
  const { backbone: b, head: h, crops } = golden.config;
  const backbone = backboneOf(b);
  const head = headConfig({
    inDim: backbone.embedDim,
    outDim: h.out_dim,
    layers: h.nlayers,
    hiddenDim: h.hidden_dim,
    bottleneckDim: h.bottleneck_dim,
    batchNorm: h.use_bn ?? false,
  });
  if (headBufferShapes(head).length) {
    throw new SyntaxError(`${golden.folder}: a multicrop case with batch norm is not known`);
  }
  const network = { backbone, head };
  const { parameters } = loadParameters(backend, golden, "param.", networkShapes(network));
  const p = new Program("multicrop");
  const whole = multiCrop(p, parameters, network, groupCrops(golden, backend, p, crops, backbone.patchSize));
  const features = output(p, whole.features), logits = output(p, whole.logits);
  const alone = groupCrops(golden, backend, p, crops.slice(0, 1), backbone.patchSize);
  const single = output(p, multiCrop(p, parameters, network, alone).logits);
  await runOnce(backend, p);
  golden.compare("output.features", await backend.read(features));
  golden.compare("output.logits", await backend.read(logits));
  golden.compare("output.logits_single", await backend.read(single));
}

/** Consecutive crops of equal width share a pass, as in the reference. */
function groupCrops(
  golden: GoldenCase,
  backend: Backend,
  p: Program,
  crops: { key: string; batch: number; height: number; width: number }[],
  patchSize: number,
): PatchGroup[] {
  const groups: { keys: string[]; images: number; height: number; width: number }[] = [];
  for (const { key, batch, height, width } of crops) {
    const last = groups.at(-1);
    if (last?.width === width) last.keys.push(key), last.images += batch;
    else groups.push({ keys: [key], images: batch, height, width });
  }
  return groups.map(({ keys, images, height, width }) => {
    const parts = keys.map((key) => golden.floats(`input.${key}`));
    const channels = golden.shape(`input.${keys[0]}`)[1];
    const data = new Float32Array(images * channels * height * width);
    let at = 0;
    for (const part of parts) data.set(part, at), at += part.length;
    const image = input(backend, keys.join(), [images, channels, height, width], data);
    return { patches: patchify(p, image, patchSize), images, height, width };
  });
}
