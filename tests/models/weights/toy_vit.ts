// A small random Vision Transformer, its file, and its forward pass on the float64 reference.

import { patchify } from "../../../models/graph/ops/tokens.ts";
import { Program } from "../../../models/graph/program.ts";
import { ReferenceBackend } from "../../../models/graph/reference.ts";
import { tensor } from "../../../models/graph/tensor.ts";
import { CounterRandom, STREAM } from "../../../models/rng.ts";
import { finalNorm, patchesFrom, vit, type VitConfig, vitConfig, vitShapes } from "../../../models/vit.ts";
import { bytesSource, encodeSafetensors, type TensorToWrite } from "../../../models/weights/safetensors.ts";
import { openWeights } from "../../../models/weights/open.ts";
import type { TensorFile } from "../../../models/weights/tensor_file.ts";
import { VIT_KEY, type VitWeights } from "../../../models/weights/vit_weights.ts";
import { input, output, runOnce } from "../../parity/run_program.ts";

/** Three heads of 16: not what the width suggests. */
export const TOY: VitConfig = vitConfig({ embedDim: 48, depth: 2, numHeads: 3, patchSize: 8, imageSize: 32 });

/** Values that look like weights: norms near 1, everything else small; every run draws the same. */
export function toyTensors(config: VitConfig, prefix = "", seed = 7): TensorToWrite[] {
  return vitShapes(config).map(([name, shape], i) => {
    const random = new CounterRandom(seed, STREAM.initialization);
    random.restart(i);
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
    random.fillUniform(data, -0.2, 0.2);
    if (/norm\d?\.weight$/.test(name)) { for (let k = 0; k < data.length; k++) data[k] += 1; }
    return { name: prefix + name, dtype: "F32", shape, bytes: () => new Uint8Array(data.buffer.slice(0)) };
  });
}

/** A file of these tensors that says how many heads there are. */
export async function toyFile(config: VitConfig = TOY, prefix = "", extra: TensorToWrite[] = []): Promise<TensorFile> {
  const metadata = { format: "pt", [VIT_KEY]: JSON.stringify(config) };
  return await openWeights(
    bytesSource(await encodeSafetensors([...toyTensors(config, prefix), ...extra], metadata), "toy.safetensors"),
  );
}

/** Pixels that every run draws the same, [count, 3, height, width]. */
export function toyImages(count: number, height: number, width: number): Float32Array {
  const random = new CounterRandom(3, STREAM.initialization);
  random.restart(height * 1000 + width);
  const pixels = new Float32Array(count * 3 * height * width);
  random.fillUniform(pixels, -2, 2);
  return pixels;
}

/** All tokens after the final norm, [images, tokens, D], and the last attention, [images, heads, tokens, tokens]. */
export async function forward(
  { config: c, weights }: Pick<VitWeights, "config" | "weights">,
  pixels: Float32Array,
  [images, height, width]: readonly [number, number, number],
): Promise<{ tokens: Float32Array; attention: Float32Array }> {
  const backend = new ReferenceBackend();
  const parameters = new Map(
    vitShapes(c).map(([name, shape]) => {
      const { data } = weights.get(`backbone.${name}`)!;
      const t = tensor(name, shape, "param");
      backend.write(t, data);
      return [name, t];
    }),
  );
  const p = new Program("toy");
  const image = input(backend, "image", [images, c.inChannels, height, width], pixels);
  const count = Math.floor(height / c.patchSize) * Math.floor(width / c.patchSize) + patchesFrom(c);
  const attention = tensor("attention", [images, c.numHeads, count, count], "output");
  const batch = { patches: patchify(p, image, c.patchSize), images, height, width };
  const { blocks } = vit(p, (name) => parameters.get(name)!, c, batch, { attention });
  const tokens = output(p, finalNorm(p, (name) => parameters.get(name)!, c, blocks.at(-1)!));
  await runOnce(backend, p);
  return {
    tokens: await backend.read(tokens) as Float32Array,
    attention: await backend.read(attention) as Float32Array,
  };
}

/** The largest difference; NaN anywhere is Infinity. */
export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  let largest = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs(a[i] - b[i]);
    if (!(difference <= largest)) largest = Number.isNaN(difference) ? Infinity : difference;
  }
  return largest;
}
