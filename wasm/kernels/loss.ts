// Teacher softmax, DINO's loss with its gradient, and the center. A chunk is a row, read from memory once: a row of 65536
// logits is 256 KiB and stays in L2 between the maximum, the exponentials and the result.
import { exp4, laneMax, laneSum64, loadUpTo, log, storeUpTo } from "./math";
import { constants, scratch } from "./context";
import { real, word } from "./step";

/** Elements summed in float32 before they join a float64 total. */
const BLOCK: u32 = 512;

/** Arguments: logits, center, temperature, probs, entropy (or 0), K. */
export function centeredSoftmax(step: usize, chunk: u32): void {
  const K = word(step, 5), row = <usize>chunk * K << 2, x = word(step, 0) + row, y = word(step, 3) + row;
  const center: usize = word(step, 1), inverse = f32x4.splat(1 / load<f32>(word(step, 2)));
  let most = f32x4.splat(-Infinity);
  for (let i: u32 = 0; i < K; i += 4) {
    const at = <usize>i << 2, left = K - i;
    most = f32x4.max(most, f32x4.sub(loadUpTo(x + at, left, -Infinity), loadUpTo(center + at, left)));
  }
  const shift = f32x4.splat(laneMax(most));
  let total: f64 = 0, moment: f64 = 0; // Σ e, Σ e·z with z ≤ 0 the shifted, scaled logit
  for (let i: u32 = 0; i < K;) {
    let s = f32x4.splat(0), m = s;
    for (const end = min(i + BLOCK, K); i < end; i += 4) {
      const at = <usize>i << 2, left = K - i;
      const logit = f32x4.sub(loadUpTo(x + at, left, -Infinity), loadUpTo(center + at, left));
      const z = f32x4.max(f32x4.mul(f32x4.sub(logit, shift), inverse), f32x4.splat(-1e30));
      let e = exp4(z, constants);
      // Lanes past the end hold −1e30: they must add nothing.
      if (left < 4) e = v128.and(e, f32x4.gt(z, f32x4.splat(-1e29)));
      s = f32x4.add(s, e);
      m = f32x4.relaxed_madd(e, z, m);
      storeUpTo(y + at, e, left);
    }
    total += laneSum64(s);
    moment += laneSum64(m);
  }
  const scale = f32x4.splat(<f32>(1 / total));
  for (let i: u32 = 0; i < K; i += 4) {
    const at = <usize>i << 2, left = K - i;
    storeUpTo(y + at, f32x4.mul(loadUpTo(y + at, left), scale), left);
  }
  if (word(step, 4)) store<f32>(word(step, 4) + (<usize>chunk << 2), <f32>(log(total) - moment / total));
}

/** Sum of the teacher's rows of image b over the views other than v, four elements at a time. */
// @ts-ignore: decorator
@inline
function target4(probs: usize, viewBytes: usize, globals: u32, v: u32, left: u32): v128 {
  let t = f32x4.splat(0);
  for (let g: u32 = 0; g < globals; g++, probs += viewBytes) {
    if (g != v) t = f32x4.add(t, loadUpTo(probs, left));
  }
  return t;
}

/**
 * Arguments: student, probs, dlogits (or 0), losses, K, globals, images, temperature, gradientScale, firstView.
 * With e = exp((s − max)/τ): loss = n·log Σe − Σ t·(s − max)/τ, which cancels nothing large.
 */
export function dinoLoss(step: usize, chunk: u32): void {
  const K = word(step, 4), globals = word(step, 5), images = word(step, 6), row = <usize>chunk * K << 2;
  const v = chunk / images + word(step, 9), b = chunk % images, viewBytes = <usize>images * (K << 2);
  const x = word(step, 0) + row, probs = word(step, 1) + <usize>b * (K << 2);
  const dlogits: usize = word(step, 2) ? word(step, 2) + row : 0, e = dlogits ? dlogits : scratch;
  const n: u32 = v < globals ? globals - 1 : globals;
  const inverse = f32x4.splat(1 / real(step, 7));
  let most = f32x4.splat(-Infinity);
  for (let i: u32 = 0; i < K; i += 4) most = f32x4.max(most, loadUpTo(x + (<usize>i << 2), K - i, -Infinity));
  const shift = f32x4.splat(laneMax(most));
  let total: f64 = 0, cross: f64 = 0;
  for (let i: u32 = 0; i < K;) {
    let s = f32x4.splat(0), c = s;
    for (const end = min(i + BLOCK, K); i < end; i += 4) {
      const at = <usize>i << 2, left = K - i;
      const z = f32x4.max(
        f32x4.mul(f32x4.sub(loadUpTo(x + at, left, -Infinity), shift), inverse), f32x4.splat(-1e30),
      );
      let p = exp4(z, constants);
      if (left < 4) p = v128.and(p, f32x4.gt(z, f32x4.splat(-1e29)));
      s = f32x4.add(s, p);
      c = f32x4.relaxed_madd(target4(probs + at, viewBytes, globals, v, left), z, c);
      storeUpTo(e + at, p, left);
    }
    total += laneSum64(s);
    cross += laneSum64(c);
  }
  store<f32>(word(step, 3) + (<usize>chunk << 2), <f32>(<f64>n * log(total) - cross));
  if (!dlogits) return;
  const scale = real(step, 8) / real(step, 7), softmax = f32x4.splat(<f32>(<f64>n / total));
  const factor = f32x4.splat(scale);
  for (let i: u32 = 0; i < K; i += 4) {
    const at = <usize>i << 2, left = K - i;
    const d = f32x4.sub(
      f32x4.mul(softmax, loadUpTo(dlogits + at, left)), target4(probs + at, viewBytes, globals, v, left),
    );
    storeUpTo(dlogits + at, f32x4.mul(factor, d), left);
  }
}

/** Arguments: sum, center in, center out, frozen (or 0), K, momentum, (1 − momentum) / rows, elements a chunk. */
export function centerUpdate(step: usize, chunk: u32): void {
  if (word(step, 3) && load<f32>(word(step, 3)) != 0) return;
  const perChunk = word(step, 7), last = min((chunk + 1) * perChunk, word(step, 4));
  const keep = f32x4.splat(real(step, 5)), factor = f32x4.splat(real(step, 6));
  for (let i = chunk * perChunk; i < last; i += 4) {
    const at = <usize>i << 2, left = last - i;
    const sum = f32x4.mul(loadUpTo(word(step, 0) + at, left), factor);
    storeUpTo(word(step, 2) + at, f32x4.relaxed_madd(keep, loadUpTo(word(step, 1) + at, left), sum), left);
  }
}
