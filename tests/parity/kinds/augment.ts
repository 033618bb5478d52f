// Kind augment: Pillow's image operations on the device, and the distribution of random crops.
import type { Backend } from "../../../models/graph/backend.ts";
import { type ImageStep, runImageSteps, runNormalizedImageSteps } from "../../../models/image/steps.ts";
import { raster } from "../../../models/image/raster.ts";
import { resizeMaskNearest } from "../../../models/image/host_resize.ts";
import type { GoldenCase } from "../golden_case.ts";
import { compareCropDraws } from "./crop_draws.ts";

interface AugmentCase {
  input: string;
  steps: ImageStep[];
  to_tensor_normalize?: boolean;
  output: string;
  output_u8?: string;
}

export async function augment(golden: GoldenCase, backend: Backend) {
  const { mean, std, ops } = golden.config;
  for (const { input, steps, output, output_u8, to_tensor_normalize } of ops as AugmentCase[]) {
    const [height, width] = golden.shape(input);
    const pixels = Uint8Array.from(golden.data(input));
    const image = raster(pixels, height, width);
    const levels = allowedLevels(backend, steps);
    if (to_tensor_normalize) {
      const { data } = await runNormalizedImageSteps(backend, image, steps, { mean, deviation: std });
      const level = Math.max(...std.map((s: number) => 1 / (255 * s)));
      golden.compare(output, data, { atol: golden.tensors[output].atol! + levels * level });
    }
    const bytes = to_tensor_normalize ? output_u8 : output;
    if (bytes) golden.compare(bytes, (await runImageSteps(backend, image, steps)).data, { atol: levels });
  }
  for (const name of golden.namesUnder("output.mask_nearest")) {
    const output = `output.mask_nearest${name}`;
    const [height, width] = golden.shape("mask"), [outH, outW] = golden.shape(output);
    golden.compare(output, resizeMaskNearest(Uint8Array.from(golden.data("mask")), height, width, outH, outW));
  }
  compareCropDraws(golden);
}

/** 8-bit levels a result may be off: none, or on a device that computes in floats one, or two after hue or a chain. */
function allowedLevels(backend: Backend, steps: readonly ImageStep[]): number {
  if (backend.name !== "webgpu") return 0;
  return steps.length > 1 || steps.some((s) => s.op === "hue") ? 2 : 1;
}
