// Initial values of every parameter and buffer, with the distributions of the DINO release.
import { CounterRandom, STREAM } from "./rng.ts";
import { type NetworkConfig, networkShapes } from "./dino_network.ts";

/**
 * Draws all parameters of a network by name.
 *
 * - Linear weights, `cls_token` and `pos_embed`: N(0, std²), cut at ±2, which for 0.02 cuts nothing; their biases: 0
 * - layer and batch norms: weight 1, bias 0
 * - the patch convolution, weight and bias, and `last_layer.weight_v`: U(±1/√fan_in), as PyTorch leaves them
 * - `last_layer.weight_g`: 1
 * - convolutions of an XCiT, weight and bias: U(±1/√fan_in) likewise; its layer scales `eta`, temperatures 1
 * - convolutions of a ResNet: N(0, 2/(channels out · window)), as torchvision draws them
 *
 * @param std 0.02 in the release
 */
export function initialParameters(config: NetworkConfig, seed: number, std = 0.02): Map<string, Float32Array> {
  const random = new CounterRandom(seed, STREAM.initialization);
  const { backbone } = config;
  const values = new Map<string, Float32Array>();
  networkShapes(config).forEach(([name, shape], i) => {
    random.restart(i);
    const value = new Float32Array(shape.reduce((a, b) => a * b, 1));
    const uniform = (fanIn: number) => random.fillUniform(value, -1 / Math.sqrt(fanIn), 1 / Math.sqrt(fanIn));
    const window = "family" in backbone && backbone.family === "xcit" ? xcitWindow(name, shape) : undefined;
    if (window) uniform(window);
    else if (/\.gamma\d$/.test(name) && "eta" in backbone) value.fill(backbone.eta);
    else if (name.endsWith(".attn.temperature")) value.fill(1);
    else if (shape.length === 4 && "family" in backbone) {
      random.fillTruncatedNormal(value, Math.sqrt(2 / (shape[0] * shape[2] * shape[3])), -Infinity, Infinity);
    } else if (name.includes("patch_embed.proj.") && "patchSize" in backbone) {
      uniform(backbone.inChannels * backbone.patchSize ** 2);
    } else if (name.endsWith("last_layer.weight_v")) uniform(shape[1]);
    else if (name.endsWith("last_layer.weight_g")) value.fill(1);
    else if (name.endsWith(".bias")) value.fill(0);
    else if (shape.length === 1) value.fill(1); // the weights of norms: everything else has more extents
    else random.fillTruncatedNormal(value, std);
    values.set(name, value);
  });
  return values;
}

/** Inputs of each output of an XCiT's convolutions, by a parameter of theirs; undefined for other parameters. */
function xcitWindow(name: string, shape: readonly number[]): number | undefined {
  if (shape.length === 4) return shape[1] * shape[2] * shape[3];
  if (/\.local_mp\.conv\d\.bias$/.test(name)) return 9;
  return name.endsWith(".token_projection.bias") ? 64 : undefined;
}

/** What a running statistic of a batch norm begins with. */
export function initialBuffer(name: string): number {
  return name.endsWith(".running_var") ? 1 : 0;
}
