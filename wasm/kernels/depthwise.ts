// Depthwise convolutions over channels-last images, and the scaling of residual branches.
import { scratch } from "./context";
import { loadUpTo, storeUpTo } from "./math";
import { word } from "./step";

/**
 * y[b, oy, ox, c] (+)= bias[c] + Σ weight[c, ky, kx]·x[b, oy + ky − r, ox + kx − r, c]. A chunk is a range of lines of pixels.
 * Arguments: x, weight, bias (or 0), y, lines, H, W, C, k, flipped, accumulate, lines a chunk. Scratch: k·k·C floats.
 */
export function depthwiseConv(step: usize, chunk: u32): void {
  const H = <i32>word(step, 5), W = <i32>word(step, 6), C = word(step, 7), k = <i32>word(step, 8), perChunk = word(step, 11);
  const reach = (k - 1) / 2, pixel: usize = C << 2, taps = <u32>(k * k), weight: usize = word(step, 1), bias: usize = word(step, 2);
  for (let tap: u32 = 0; tap < taps; tap++) { // [taps, C]: channels side by side
    const from = word(step, 9) ? taps - 1 - tap : tap;
    for (let c: u32 = 0; c < C; c++) {
      store<f32>(scratch + (<usize>(tap * C + c) << 2), load<f32>(weight + (<usize>(c * taps + from) << 2)));
    }
  }
  const last = min((chunk + 1) * perChunk, word(step, 4));
  for (let line = chunk * perChunk; line < last; line++) {
    const oy = <i32>line % H, firstY = max(0, reach - oy), lastY = min(k, H + reach - oy);
    for (let ox: i32 = 0; ox < W; ox++) {
      const firstX = max(0, reach - ox), lastX = min(k, W + reach - ox);
      const to = <usize>(<i32>line * W + ox) * pixel, y = word(step, 3) + to;
      const corner = word(step, 0) + to - <usize>(reach * W + reach) * pixel; // of the window, inside the image or not
      for (let c: u32 = 0; c < C; c += 4) {
        const at = <usize>c << 2, left = C - c;
        let s = bias ? loadUpTo(bias + at, left) : f32x4.splat(0);
        if (word(step, 10)) s = f32x4.add(s, loadUpTo(y + at, left));
        for (let ky = firstY; ky < lastY; ky++) {
          for (let kx = firstX; kx < lastX; kx++) {
            const w = loadUpTo(scratch + <usize>(ky * k + kx) * pixel + at, left);
            s = f32x4.relaxed_madd(w, loadUpTo(corner + <usize>(ky * W + kx) * pixel + at, left), s);
          }
        }
        storeUpTo(y + at, s, left);
      }
    }
  }
}

/**
 * dweight[c, ky, kx] (+)= Σ dy[b, oy, ox, c]·x[b, oy + ky − r, ox + kx − r, c]. A chunk is four channels, all taps.
 * Arguments: dy, x, dweight, lines, H, W, C, k, accumulate. Scratch: 4·k·k floats.
 */
export function depthwiseConvWeightGradient(step: usize, chunk: u32): void {
  const H = <i32>word(step, 4), W = <i32>word(step, 5), C = word(step, 6), k = <i32>word(step, 7), lines = <i32>word(step, 3);
  const reach = (k - 1) / 2, pixel: usize = C << 2, at: usize = chunk << 4, left = C - 4 * chunk;
  const dy = word(step, 0) + at, x = word(step, 1) + at;
  memory.fill(scratch, 0, <usize>(k * k) << 4);
  for (let line: i32 = 0; line < lines; line++) {
    const oy = line % H;
    for (let ky = max(0, reach - oy), lastY = min(k, H + reach - oy); ky < lastY; ky++) {
      for (let kx: i32 = 0; kx < k; kx++) {
        const sum = scratch + (<usize>(ky * k + kx) << 4), shift = kx - reach;
        const first = max(0, -shift), count = min(W, W - shift) - first;
        let d = dy + <usize>(line * W + first) * pixel, v = x + <usize>((line + ky - reach) * W + first + shift) * pixel;
        let s = v128.load(sum);
        for (let i: i32 = 0; i < count; i++, d += pixel, v += pixel) {
          s = f32x4.relaxed_madd(loadUpTo(d, left), loadUpTo(v, left), s);
        }
        v128.store(sum, s);
      }
    }
  }
  const taps = <u32>(k * k);
  for (let lane: u32 = 0; lane < min(left, 4); lane++) {
    let to = word(step, 2) + (<usize>((4 * chunk + lane) * taps) << 2);
    for (let tap: u32 = 0; tap < taps; tap++, to += 4) {
      const v = load<f32>(scratch + (<usize>(4 * tap + lane) << 2));
      store<f32>(to, word(step, 8) ? load<f32>(to) + v : v);
    }
  }
}

/**
 * y = residual + rowScale·gamma·x. Arguments: x, gamma, residual (or 0), rowScale (or 0), y, rows, columns, rows of a scale,
 * rows a chunk.
 */
export function layerScale(step: usize, chunk: u32): void {
  const columns = word(step, 6), perChunk = word(step, 8), last = min((chunk + 1) * perChunk, word(step, 5));
  for (let r = chunk * perChunk; r < last; r++) {
    const row = <usize>r * (columns << 2), x = word(step, 0) + row, y = word(step, 4) + row;
    const factor = f32x4.splat(word(step, 3) ? load<f32>(word(step, 3) + (<usize>(r / word(step, 7)) << 2)) : 1);
    for (let c: u32 = 0; c < columns; c += 4) {
      const at = <usize>c << 2, left = columns - c;
      const scale = f32x4.mul(factor, loadUpTo(word(step, 1) + at, left));
      const before = word(step, 2) ? loadUpTo(word(step, 2) + row + at, left) : f32x4.splat(0);
      storeUpTo(y + at, f32x4.relaxed_madd(scale, loadUpTo(x + at, left), before), left);
    }
  }
}

/**
 * dx (+)= rowScale·gamma·dy, and Σ rowScale·x·dy of the chunk's rows. Arguments: dy, x, gamma, rowScale (or 0), dx (or 0),
 * partial sums (or 0), rows, columns, rows of a scale, rows a chunk, accumulate into dx.
 */
export function layerScaleBackward(step: usize, chunk: u32): void {
  const columns = word(step, 7), perChunk = word(step, 9), last = min((chunk + 1) * perChunk, word(step, 6));
  const bytes: usize = columns << 2, partial: usize = word(step, 5) ? word(step, 5) + chunk * bytes : 0;
  if (partial) memory.fill(partial, 0, bytes);
  for (let r = chunk * perChunk; r < last; r++) {
    const row = <usize>r * bytes, dy = word(step, 0) + row, x = word(step, 1) + row, dx = word(step, 4) + row;
    const factor = f32x4.splat(word(step, 3) ? load<f32>(word(step, 3) + (<usize>(r / word(step, 8)) << 2)) : 1);
    for (let c: u32 = 0; c < columns; c += 4) {
      const at = <usize>c << 2, left = columns - c, d = f32x4.mul(factor, loadUpTo(dy + at, left));
      if (partial) {
        storeUpTo(partial + at, f32x4.relaxed_madd(d, loadUpTo(x + at, left), loadUpTo(partial + at, left)), left);
      }
      if (word(step, 4)) {
        const before = word(step, 10) ? loadUpTo(dx + at, left) : f32x4.splat(0);
        storeUpTo(dx + at, f32x4.relaxed_madd(d, loadUpTo(word(step, 2) + at, left), before), left);
      }
    }
  }
}
