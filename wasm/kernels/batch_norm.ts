// Batch norm over rows. A chunk is four channels.
import { loadUpTo, storeUpTo } from "./math";
import { real, word } from "./step";

/** Arguments: x, weight, bias, runningMean, runningVar, y, stats, rows, channels, eps, momentum, training. */
export function batchNorm(step: usize, chunk: u32): void {
  const rows = word(step, 7), C = word(step, 8), first = chunk << 2, left = C - first, at = <usize>first << 2;
  const stride: usize = C << 2, x = word(step, 0) + at, count = f32x4.splat(<f32>rows);
  let mean = loadUpTo(word(step, 3) + at, left), variance = loadUpTo(word(step, 4) + at, left);
  if (word(step, 11)) {
    let sum = f32x4.splat(0), squares = sum;
    for (let r: u32 = 0; r < rows; r++) sum = f32x4.add(sum, loadUpTo(x + r * stride, left));
    const batchMean = f32x4.div(sum, count);
    for (let r: u32 = 0; r < rows; r++) {
      const d = f32x4.sub(loadUpTo(x + r * stride, left), batchMean);
      squares = f32x4.relaxed_madd(d, d, squares);
    }
    const momentum = f32x4.splat(real(step, 10)), unbiased = f32x4.div(squares, f32x4.splat(<f32>(rows - 1)));
    storeUpTo(word(step, 3) + at, f32x4.relaxed_madd(momentum, f32x4.sub(batchMean, mean), mean), left);
    storeUpTo(word(step, 4) + at, f32x4.relaxed_madd(momentum, f32x4.sub(unbiased, variance), variance), left);
    mean = batchMean;
    variance = f32x4.div(squares, count);
  }
  const rstd = f32x4.div(f32x4.splat(1), f32x4.sqrt(f32x4.add(variance, f32x4.splat(real(step, 9)))));
  storeUpTo(word(step, 6) + at, mean, left);
  storeUpTo(word(step, 6) + stride + at, rstd, left);
  const scale = f32x4.mul(rstd, loadUpTo(word(step, 1) + at, left)), bias = loadUpTo(word(step, 2) + at, left);
  for (let r: u32 = 0; r < rows; r++) {
    const v = f32x4.relaxed_madd(f32x4.sub(loadUpTo(x + r * stride, left), mean), scale, bias);
    storeUpTo(word(step, 5) + r * stride + at, v, left);
  }
}

/** Arguments: dy, x, stats, weight, dx, dweight, dbias (each or 0), rows, channels, training, accumulateX, accumulateParams. */
export function batchNormBackward(step: usize, chunk: u32): void {
  const rows = word(step, 7), C = word(step, 8), first = chunk << 2, left = C - first, at = <usize>first << 2;
  const stride: usize = C << 2, dy = word(step, 0) + at, x = word(step, 1) + at;
  const mean = loadUpTo(word(step, 2) + at, left), rstd = loadUpTo(word(step, 2) + stride + at, left);
  let sum = f32x4.splat(0), product = sum;
  for (let r: u32 = 0; r < rows; r++) {
    const d = loadUpTo(dy + r * stride, left);
    sum = f32x4.add(sum, d);
    product = f32x4.relaxed_madd(d, f32x4.mul(f32x4.sub(loadUpTo(x + r * stride, left), mean), rstd), product);
  }
  addTo(word(step, 5), at, product, left, word(step, 11));
  addTo(word(step, 6), at, sum, left, word(step, 11));
  if (!word(step, 4)) return;
  const scale = f32x4.mul(loadUpTo(word(step, 3) + at, left), rstd);
  const inverse = f32x4.splat(word(step, 9) ? 1 / <f32>rows : 0);
  const meanSum = f32x4.mul(sum, inverse), meanProduct = f32x4.mul(product, inverse);
  for (let r: u32 = 0; r < rows; r++) {
    const unit = f32x4.mul(f32x4.sub(loadUpTo(x + r * stride, left), mean), rstd);
    const d = f32x4.relaxed_nmadd(unit, meanProduct, f32x4.sub(loadUpTo(dy + r * stride, left), meanSum));
    let v = f32x4.mul(scale, d);
    const dx = word(step, 4) + r * stride + at;
    if (word(step, 10)) v = f32x4.add(v, loadUpTo(dx, left));
    storeUpTo(dx, v, left);
  }
}

function addTo(base: usize, at: usize, v: v128, left: u32, accumulate: u32): void {
  if (!base) return;
  storeUpTo(base + at, accumulate ? f32x4.add(v, loadUpTo(base + at, left)) : v, left);
}
