// Windows of channels-last images as rows of a matrix, and back; a convolution is a product with them.
import { loadUpTo, storeUpTo } from "./math";
import { word } from "./step";

/** y = x over n floats. */
function moveFloats(y: usize, x: usize, n: u32): void {
  for (; n >= 8; n -= 8, x += 32, y += 32) {
    const v0 = v128.load(x), v1 = v128.load(x, 16);
    v128.store(y, v0);
    v128.store(y, v1, 16);
  }
  for (; n > 0; n -= min(n, 4), x += 16, y += 16) storeUpTo(y, loadUpTo(x, n), n);
}

function clearFloats(y: usize, n: u32): void {
  for (; n > 0; n -= min(n, 4), y += 16) storeUpTo(y, f32x4.splat(0), n);
}

/**
 * columns[row − first, (ky·kw + kx)·C + c] = x[b, oy·stride + ky − padding, ox·stride + kx − padding, c], 0 outside.
 * Arguments: x, columns, first, rows, C, H, W, kh, kw, outH, outW, stride, padding, rows a chunk.
 */
export function im2col(step: usize, chunk: u32): void {
  const C = word(step, 4), H = <i32>word(step, 5), W = <i32>word(step, 6), kh = word(step, 7), kw = <i32>word(step, 8);
  const outH = word(step, 9), outW = word(step, 10), stride = word(step, 11), padding = word(step, 12);
  const perChunk = word(step, 13), begin = chunk * perChunk, end = min(begin + perChunk, word(step, 3));
  let to: usize = word(step, 1) + (<usize>begin * (kh * kw * C) << 2);
  for (let r = begin; r < end; r++) {
    const row = word(step, 2) + r, line = row / outW, ox = row - line * outW, b = line / outH, oy = line - b * outH;
    const iy0 = <i32>(oy * stride) - <i32>padding, ix0 = <i32>(ox * stride) - <i32>padding;
    // The pixels of a line of the window follow one another: what lies inside is one run.
    const from = max(0, -ix0), until = max(from, min(kw, W - ix0));
    for (let ky: u32 = 0; ky < kh; ky++) {
      const iy = iy0 + <i32>ky;
      if (iy < 0 || iy >= H) {
        clearFloats(to, kw * C);
      } else {
        if (from > 0) clearFloats(to, from * C);
        const x: usize = word(step, 0) + (<usize>((<i32>b * H + iy) * W + ix0 + from) * C << 2);
        moveFloats(to + (<usize>from * C << 2), x, (until - from) * C);
        if (until < kw) clearFloats(to + (<usize>until * C << 2), (kw - until) * C);
      }
      to += <usize>kw * C << 2;
    }
  }
}

/**
 * x[b, iy, ix, c] (+)= Σ columns[row, tap, c] over the windows that hold the pixel as their tap; columns begin with the first
 * window of image `image`. Arguments: x, columns, image, pixels, C, H, W, kh, kw, outH, outW, stride, padding, accumulate,
 * pixels a chunk.
 */
export function col2im(step: usize, chunk: u32): void {
  const C = word(step, 4), H = word(step, 5), W = word(step, 6), kh = word(step, 7), kw = word(step, 8);
  const outH = word(step, 9), outW = word(step, 10), stride = word(step, 11), padding = word(step, 12);
  const perChunk = word(step, 14), begin = chunk * perChunk, end = min(begin + perChunk, word(step, 3));
  const width: usize = <usize>(kh * kw * C) << 2;
  for (let i = begin; i < end; i++) {
    const line = i / W, ix = i - line * W, b = line / H, iy = line - b * H;
    const x: usize = word(step, 0) + (<usize>(word(step, 2) * H * W + i) * C << 2);
    let first = !word(step, 13);
    for (let ky: u32 = 0; ky < kh; ky++) {
      const y = <i32>(iy + padding) - <i32>ky;
      if (y < 0 || y % <i32>stride != 0 || y / <i32>stride >= <i32>outH) continue;
      for (let kx: u32 = 0; kx < kw; kx++) {
        const at = <i32>(ix + padding) - <i32>kx;
        if (at < 0 || at % <i32>stride != 0 || at / <i32>stride >= <i32>outW) continue;
        const row = (b * outH + y / <i32>stride) * outW + at / <i32>stride;
        const from: usize = word(step, 1) + row * width + (<usize>((ky * kw + kx) * C) << 2);
        if (first) moveFloats(x, from, C);
        else addFloats(x, from, C);
        first = false;
      }
    }
    if (first) clearFloats(x, C);
  }
}

function addFloats(y: usize, x: usize, n: u32): void {
  for (; n >= 8; n -= 8, x += 32, y += 32) {
    const v0 = f32x4.add(v128.load(y), v128.load(x)), v1 = f32x4.add(v128.load(y, 16), v128.load(x, 16));
    v128.store(y, v0);
    v128.store(y, v1, 16);
  }
  for (; n > 0; n -= min(n, 4), x += 16, y += 16) storeUpTo(y, f32x4.add(loadUpTo(y, n), loadUpTo(x, n)), n);
}

/** y[o, tap, c] = x[o, c, tap]; arguments x, y, O, C, taps, filters a chunk. */
export function tapsBefore(step: usize, chunk: u32): void {
  const C = word(step, 3), taps = word(step, 4), perChunk = word(step, 5), size: usize = <usize>(C * taps) << 2;
  const end = min((chunk + 1) * perChunk, word(step, 2));
  for (let o = chunk * perChunk; o < end; o++) {
    const x: usize = word(step, 0) + o * size;
    let y: usize = word(step, 1) + o * size;
    for (let tap: u32 = 0; tap < taps; tap++) {
      let from = x + (<usize>tap << 2);
      for (let c = C; c; c--, from += <usize>taps << 2, y += 4) store<f32>(y, load<f32>(from));
    }
  }
}

/** y[o, c, tap] (+)= x[o, tap, c]; arguments x, y, O, C, taps, filters a chunk, accumulate. */
export function tapsBehind(step: usize, chunk: u32): void {
  const C = word(step, 3), taps = word(step, 4), perChunk = word(step, 5), size: usize = <usize>(C * taps) << 2;
  const end = min((chunk + 1) * perChunk, word(step, 2)), accumulate = word(step, 6);
  for (let o = chunk * perChunk; o < end; o++) {
    const x: usize = word(step, 0) + o * size;
    let y: usize = word(step, 1) + o * size;
    for (let c: u32 = 0; c < C; c++) {
      let from = x + (<usize>c << 2);
      for (let tap = taps; tap; tap--, from += <usize>C << 2, y += 4) {
        store<f32>(y, load<f32>(from) + (accumulate ? load<f32>(y) : 0));
      }
    }
  }
}
