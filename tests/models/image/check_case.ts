// Runs the stored augmentation case on a backend and compares pixel by pixel.
import type { Backend } from "../../../models/graph/backend.ts";
import { runImageSteps, runNormalizedImageSteps } from "../../../models/image/steps.ts";
import { assert, assertEquals } from "../../assert.ts";
import { readAugmentCase } from "./golden_case.ts";

/**
 * Fails at the first operation that is off by more than the limits.
 *
 * @param limit largest difference of 8-bit results in levels, of normalised results in units
 * @returns how many operations were checked
 */
export async function checkAugmentCase(
  backend: Backend,
  limit: { levels: number; normalized: number },
): Promise<number> {
  const golden = await readAugmentCase();
  for (const op of golden.ops) {
    const image = golden.image(op.input);
    const name = op.to_tensor_normalize ? op.output_u8! : op.output;
    const levels = await runImageSteps(backend, image, op.steps);
    assertEquals([levels.height, levels.width, 3], golden.shape(name), op.key);
    assertWithin(levels.data, golden.bytes(name), limit.levels, `${op.key}, levels`);
    if (!op.to_tensor_normalize) continue;
    const normalized = await runNormalizedImageSteps(backend, image, op.steps, golden.normalization);
    assertEquals([3, normalized.height, normalized.width], golden.shape(op.output), op.key);
    assertWithin(normalized.data, golden.floats(op.output), limit.normalized, `${op.key}, normalised`);
  }
  return golden.ops.length;
}

/** Fails with place and values of the largest difference. */
export function assertWithin(got: ArrayLike<number>, expected: ArrayLike<number>, limit: number, what: string): void {
  assertEquals(got.length, expected.length, `${what}: lengths`);
  let worst = 0, at = 0, wrong = 0;
  for (let i = 0; i < got.length; i++) {
    const error = Math.abs(got[i] - expected[i]);
    if (!(error <= limit)) wrong++;
    if (!(error <= worst)) {
      worst = error;
      at = i;
    }
  }
  assert(
    worst <= limit,
    `${what}: ${wrong} of ${got.length} off by more than ${limit}; element ${at} is ${got[at]}, not ${expected[at]}`,
  );
}
