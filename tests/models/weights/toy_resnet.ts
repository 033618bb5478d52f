// A small random ResNet, its file, and its forward pass.

import type { Backend } from "../../../models/graph/backend.ts";
import { patchify } from "../../../models/graph/ops/tokens.ts";
import { Program } from "../../../models/graph/program.ts";
import { tensor } from "../../../models/graph/tensor.ts";
import { resnet, resnetBufferShapes, type ResnetConfig, resnetConfig, resnetShapes } from "../../../models/resnet.ts";
import { CounterRandom, STREAM } from "../../../models/rng.ts";
import type { ResnetWeights } from "../../../models/weights/resnet_weights.ts";
import type { TensorToWrite } from "../../../models/weights/safetensors.ts";
import { input, output, runOnce } from "../../parity/run_program.ts";

/** Bottlenecks of twice the usual width inside, in two stages. */
export const TOY_RESNET = resnetConfig({ block: "bottleneck", layers: [2, 1], basePlanes: 4, innerWidth: 2 });

/** Values that look like weights: gains and variances near 1, convolutions that keep what they are given in size; every run draws the same. */
export function resnetTensors(config: ResnetConfig, prefix = "", seed = 7): TensorToWrite[] {
  return [...resnetShapes(config), ...resnetBufferShapes(config)].map(([name, shape], i) => {
    const random = new CounterRandom(seed, STREAM.initialization);
    random.restart(i);
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
    const bound = shape.length === 4 ? Math.sqrt(6 / (data.length / shape[0])) : 0.3; // layers keep the size of values
    random.fillUniform(data, -bound, bound);
    const gain = shape.length === 1 && !/bias$|running_mean$/.test(name);
    if (gain) { for (let k = 0; k < data.length; k++) data[k] += 1; }
    return { name: prefix + name, dtype: "F32", shape, bytes: () => new Uint8Array(data.buffer.slice(0)) };
  });
}

/** Features [images, embedDim] in evaluation. */
export async function resnetFeatures(
  backend: Backend,
  { config: c, weights }: Pick<ResnetWeights, "config" | "weights">,
  pixels: Float32Array,
  [images, height, width]: readonly [number, number, number],
): Promise<Float32Array> {
  const parameters = new Map(
    [...resnetShapes(c), ...resnetBufferShapes(c)].map(([name, shape]) => {
      const t = tensor(name, shape, "param");
      backend.write(t, weights.get(`backbone.${name}`)!.data);
      return [name, t];
    }),
  );
  const p = new Program("resnet");
  const image = input(backend, "image", [images, 3, height, width], pixels);
  const crops = { patches: patchify(p, image, 1), images, height, width };
  const made = output(p, resnet(p, (name) => parameters.get(name)!, c, crops, { training: false }).features);
  await runOnce(backend, p);
  return await backend.read(made) as Float32Array;
}
