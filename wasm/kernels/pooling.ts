// Rectifiers, and pooling over channels-last images.
import { loadUpTo, storeUpTo } from "./math";
import { real, word } from "./step";

// @ts-ignore: decorator
@inline
function rectified(v: v128): v128 {
  return f32x4.max(v, f32x4.splat(0)); // wasm's maximum keeps NaN
}

/** y = max(0, x + residual); arguments x, residual (or 0), y, elements, elements a chunk. */
export function relu(step: usize, chunk: u32): void {
  const x: usize = word(step, 0), residual: usize = word(step, 1), y: usize = word(step, 2), perChunk = word(step, 4);
  const first = chunk * perChunk, last = min(first + perChunk, word(step, 3));
  let i = first;
  if (residual) {
    for (; i + 8 <= last; i += 8) {
      const at = <usize>i << 2;
      const v0 = rectified(f32x4.add(v128.load(x + at), v128.load(residual + at)));
      const v1 = rectified(f32x4.add(v128.load(x + at, 16), v128.load(residual + at, 16)));
      v128.store(y + at, v0);
      v128.store(y + at, v1, 16);
    }
    for (; i < last; i += 4) {
      const at = <usize>i << 2, left = last - i;
      storeUpTo(y + at, rectified(f32x4.add(loadUpTo(x + at, left), loadUpTo(residual + at, left))), left);
    }
    return;
  }
  for (; i + 8 <= last; i += 8) {
    const at = <usize>i << 2, v0 = rectified(v128.load(x + at)), v1 = rectified(v128.load(x + at, 16));
    v128.store(y + at, v0);
    v128.store(y + at, v1, 16);
  }
  for (; i < last; i += 4) {
    const at = <usize>i << 2, left = last - i;
    storeUpTo(y + at, rectified(loadUpTo(x + at, left)), left);
  }
}

/** dx (+)= dy where y > 0; arguments dy, y, dx, elements, elements a chunk, accumulate. */
export function reluBackward(step: usize, chunk: u32): void {
  const dy: usize = word(step, 0), y: usize = word(step, 1), dx: usize = word(step, 2), perChunk = word(step, 4);
  const first = chunk * perChunk, last = min(first + perChunk, word(step, 3)), accumulate = word(step, 5);
  for (let i = first; i < last; i += 4) {
    const at = <usize>i << 2, left = last - i;
    let v = v128.and(loadUpTo(dy + at, left), f32x4.gt(loadUpTo(y + at, left), f32x4.splat(0)));
    if (accumulate) v = f32x4.add(v, loadUpTo(dx + at, left));
    storeUpTo(dx + at, v, left);
  }
}

/** Arguments: x, y, tap (or 0), rows of y, C, H, W, kernel, outH, outW, stride, padding, rows a chunk. */
export function maxPool(step: usize, chunk: u32): void {
  const C = word(step, 4), H = <i32>word(step, 5), W = <i32>word(step, 6), kernel = <i32>word(step, 7);
  const outH = word(step, 8), outW = word(step, 9), stride = word(step, 10), padding = word(step, 11);
  const perChunk = word(step, 12), end = min((chunk + 1) * perChunk, word(step, 3)), taps: usize = word(step, 2);
  for (let row = chunk * perChunk; row < end; row++) {
    const line = row / outW, ox = row - line * outW, b = line / outH, oy = line - b * outH;
    const iy0 = <i32>(oy * stride) - <i32>padding, ix0 = <i32>(ox * stride) - <i32>padding;
    const ky0 = max(0, -iy0), ky1 = min(kernel, H - iy0), kx0 = max(0, -ix0), kx1 = min(kernel, W - ix0);
    const out: usize = <usize>row * C << 2;
    for (let c: u32 = 0; c < C; c += 4) {
      const left = C - c, at = <usize>c << 2;
      let best = f32x4.splat(-Infinity), which = i32x4.splat(ky0 * kernel + kx0);
      for (let ky = ky0; ky < ky1; ky++) {
        let x: usize = word(step, 0) + (<usize>((<i32>b * H + iy0 + ky) * W + ix0 + kx0) * C << 2) + at;
        for (let kx = kx0; kx < kx1; kx++, x += <usize>C << 2) {
          const v = loadUpTo(x, left), wins = v128.or(f32x4.gt(v, best), f32x4.ne(v, v));
          best = v128.bitselect(v, best, wins);
          which = v128.bitselect(i32x4.splat(ky * kernel + kx), which, wins);
        }
      }
      storeUpTo(word(step, 1) + out + at, best, left);
      if (taps) storeUpTo(taps + out + at, which, left);
    }
  }
}

/** Arguments: dy, tap, dx, rows of x, C, H, W, kernel, outH, outW, stride, padding, accumulate, rows a chunk. */
export function maxPoolBackward(step: usize, chunk: u32): void {
  const C = word(step, 4), H = word(step, 5), W = word(step, 6), kernel = <i32>word(step, 7);
  const outH = <i32>word(step, 8), outW = <i32>word(step, 9), stride = <i32>word(step, 10), padding = word(step, 11);
  const perChunk = word(step, 13), end = min((chunk + 1) * perChunk, word(step, 3)), accumulate = word(step, 12);
  for (let row = chunk * perChunk; row < end; row++) {
    const line = row / W, ix = row - line * W, b = line / H, y = <i32>(line - b * H + padding), x = <i32>(ix + padding);
    // Windows whose step lies at most a kernel's side before the pixel.
    const oy0 = y < kernel ? 0 : (y - kernel) / stride + 1, oy1 = min(outH, y / stride + 1);
    const ox0 = x < kernel ? 0 : (x - kernel) / stride + 1, ox1 = min(outW, x / stride + 1);
    for (let c: u32 = 0; c < C; c += 4) {
      const left = C - c, dx: usize = word(step, 2) + ((<usize>row * C + c) << 2);
      let sum = accumulate ? loadUpTo(dx, left) : f32x4.splat(0);
      for (let oy = oy0; oy < oy1; oy++) {
        for (let ox = ox0; ox < ox1; ox++) {
          const at = (<usize>((<i32>b * outH + oy) * outW + ox) * C + c) << 2;
          const tap = i32x4.splat((y - oy * stride) * kernel + x - ox * stride);
          const mine = i32x4.eq(loadUpTo(word(step, 1) + at, left), tap);
          sum = f32x4.add(sum, v128.and(loadUpTo(word(step, 0) + at, left), mine));
        }
      }
      storeUpTo(dx, sum, left);
    }
  }
}

/** y[b, :] = mean of the rows of image b; arguments x, y, rows an image, C, 1/rows. A chunk is one image. */
export function averagePool(step: usize, chunk: u32): void {
  const rows = word(step, 2), C = word(step, 3), stride: usize = <usize>C << 2, share = f32x4.splat(real(step, 4));
  for (let c: u32 = 0; c < C; c += 4) {
    const left = C - c, at = <usize>c << 2;
    let x: usize = word(step, 0) + chunk * rows * stride + at, sum = f32x4.splat(0);
    for (let r = rows; r; r--, x += stride) sum = f32x4.add(sum, loadUpTo(x, left));
    storeUpTo(word(step, 1) + chunk * stride + at, f32x4.mul(sum, share), left);
  }
}

/** dx[row of image b, :] (+)= dy[b, :]/rows; arguments dy, dx, rows an image, C, 1/rows, accumulate. A chunk is one image. */
export function averagePoolBackward(step: usize, chunk: u32): void {
  const rows = word(step, 2), C = word(step, 3), stride: usize = <usize>C << 2, share = f32x4.splat(real(step, 4));
  for (let c: u32 = 0; c < C; c += 4) {
    const left = C - c, at = <usize>c << 2;
    const v = f32x4.mul(loadUpTo(word(step, 0) + chunk * stride + at, left), share);
    let dx: usize = word(step, 1) + chunk * rows * stride + at;
    for (let r = rows; r; r--, dx += stride) storeUpTo(dx, word(step, 5) ? f32x4.add(v, loadUpTo(dx, left)) : v, left);
  }
}
