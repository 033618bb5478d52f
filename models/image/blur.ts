// Pillow's Gaussian blur: three box blurs along each axis, each rounded to 8 bits.
import type { Raster } from "./raster.ts";

/** Box blurs along each axis that approximate a Gaussian. */
export const BLUR_PASSES = 3;

/** A box of 2·radius + 1 samples of weight `inner` and one more on each side of weight `outer`, in 2^-24. */
export interface BoxWeights {
  /** Whole samples on each side of the centre. */
  radius: number;
  /** Weight of each of the 2·radius + 1 central samples. */
  inner: number;
  /** Weight of the two samples beyond them. */
  outer: number;
}

/**
 * The box that {@link BLUR_PASSES} times over has the variance of a Gaussian, written into `target`.
 *
 * @param sigma standard deviation in pixels, what Pillow calls radius
 */
export function boxWeights(sigma: number, target: BoxWeights): BoxWeights {
  const f = Math.fround; // Pillow keeps these in float32, and the weights depend on it
  const radius = f(sigma);
  const variance = f(f(radius * radius) / BLUR_PASSES);
  const length = f(Math.sqrt(12 * variance + 1));
  const whole = Math.floor((length - 1) / 2);
  const next = f((whole + 1) * (whole + 1));
  const numerator = f((2 * whole + 1) * f(whole * (whole + 1) - f(3 * variance)));
  const box = f(whole + f(numerator / f(6 * f(variance - next))));
  target.radius = Math.trunc(box);
  target.inner = Math.trunc(f(2 ** 24 / f(f(box * 2) + 1)));
  target.outer = Math.trunc((2 ** 24 - (target.radius * 2 + 1) * target.inner) / 2);
  return target;
}

/** One box blur of `count` bytes `step` apart, edges repeated, into `target` at the same places. */
function boxBlurLine(
  source: Uint8Array,
  target: Uint8Array,
  start: number,
  step: number,
  count: number,
  box: BoxWeights,
): void {
  const at = (i: number) => source[start + Math.min(Math.max(i, 0), count - 1) * step];
  for (let i = 0; i < count; i++) {
    let sum = 0;
    for (let k = -box.radius; k <= box.radius; k++) sum += at(i + k);
    const edges = at(i - box.radius - 1) + at(i + box.radius + 1);
    // At most 255·2^24 + 2^23: below 2^32, so unsigned 32-bit arithmetic suffices on every device.
    target[start + i * step] = (sum * box.inner + edges * box.outer + 2 ** 23) >>> 24;
  }
}

/** Blurs an image in place: {@link BLUR_PASSES} times horizontally, then as often vertically. */
export function boxBlur(image: Raster, box: BoxWeights): void {
  const { data, height, width } = image;
  let from = data, to: Uint8Array = new Uint8Array(data.length);
  for (let pass = 0; pass < 2 * BLUR_PASSES; pass++) {
    const across = pass < BLUR_PASSES;
    const lines = across ? height : width;
    for (let line = 0; line < lines; line++) {
      for (let c = 0; c < 3; c++) {
        if (across) boxBlurLine(from, to, line * width * 3 + c, 3, width, box);
        else boxBlurLine(from, to, line * 3 + c, width * 3, height, box);
      }
    }
    [from, to] = [to, from];
  }
  // An even number of passes: the result is back in `data`.
}
