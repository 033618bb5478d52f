// From pixels to tokens and back.
import { loadUpTo, storeUpTo } from "./math";
import { ceilDiv, real, word } from "./step";

/** Arguments: image, patches, images, channels, H, W, patch size. A chunk is one row of patches of one image. */
export function patchify(step: usize, chunk: u32): void {
  movePatches(step, chunk, false);
}

/** Arguments as patchify. A chunk is one image, because dropped pixels must become 0. */
export function unpatchify(step: usize, chunk: u32): void {
  const C = word(step, 3), H = word(step, 4), W = word(step, 5), gridH = H / word(step, 6);
  const bytes = <usize>C * H * W << 2;
  memory.fill(word(step, 0) + chunk * bytes, 0, bytes);
  for (let gy: u32 = 0; gy < gridH; gy++) movePatches(step, chunk * gridH + gy, true);
}

function movePatches(step: usize, chunk: u32, back: bool): void {
  const C = word(step, 3), H = word(step, 4), W = word(step, 5), p = word(step, 6);
  const gridH = H / p, gridW = W / p, b = chunk / gridH, gy = chunk - b * gridH, run: usize = p << 2;
  let patch = word(step, 1) + (<usize>chunk * gridW * C * p * p << 2);
  for (let gx: u32 = 0; gx < gridW; gx++) {
    for (let c: u32 = 0; c < C; c++) {
      let pixel = word(step, 0) + ((<usize>((b * C + c) * H + gy * p) * W + gx * p) << 2);
      for (let y: u32 = 0; y < p; y++, patch += run, pixel += W << 2) {
        if (back) memory.copy(pixel, patch, run);
        else memory.copy(patch, pixel, run);
      }
    }
  }
}

/** Arguments: patches, lead, pos, x, tokens, D, leading tokens, whether each image has its own. A chunk is one image. */
export function assembleTokens(step: usize, chunk: u32): void {
  const tokens = word(step, 4), D = word(step, 5), first = word(step, 6) * D, firstBytes: usize = first << 2;
  const x = word(step, 3) + (<usize>chunk * tokens * D << 2), pos: usize = word(step, 2);
  if (first) addRows(x, word(step, 1) + (word(step, 7) ? chunk * firstBytes : 0), pos, first);
  const rest = tokens * D - first;
  addRows(x + firstBytes, word(step, 0) + (<usize>chunk * rest << 2), pos + firstBytes, rest);
}

function addRows(y: usize, a: usize, b: usize, n: u32): void {
  for (let i: u32 = 0; i < n; i += 4) {
    const at = <usize>i << 2, left = n - i;
    storeUpTo(y + at, f32x4.add(loadUpTo(a + at, left), loadUpTo(b + at, left)), left);
  }
}

/**
 * Arguments: dx, dpatches, dlead with rows for each image, tokens, D, leading tokens, accumulate into dlead; either target
 * may be 0. A chunk is one image.
 */
export function assembleTokensBackward(step: usize, chunk: u32): void {
  const tokens = word(step, 3), row: usize = word(step, 4) << 2, first = word(step, 5) * row;
  const bytes = tokens * row - first, dx = word(step, 0) + chunk * tokens * row;
  if (word(step, 1)) memory.copy(word(step, 1) + chunk * bytes, dx + first, bytes);
  if (!word(step, 2)) return;
  const dlead = word(step, 2) + chunk * first;
  if (word(step, 6)) addRows(dlead, dlead, dx, <u32>(first >> 2));
  else memory.copy(dlead, dx, first);
}

/** y[i] (+)= Σ_b x[b, i]; arguments x, y, images, image stride in bytes, elements, elements a chunk, accumulate. */
export function sumImages(step: usize, chunk: u32): void {
  const images = word(step, 2), stride: usize = word(step, 3), perChunk = word(step, 5);
  const last = min((chunk + 1) * perChunk, word(step, 4));
  for (let i = chunk * perChunk; i < last; i += 4) {
    const at = <usize>i << 2, left = last - i, y = word(step, 1) + at;
    let s = word(step, 6) ? loadUpTo(y, left) : f32x4.splat(0), x = word(step, 0) + at;
    for (let b: u32 = 0; b < images; b++, x += stride) s = f32x4.add(s, loadUpTo(x, left));
    storeUpTo(y, s, left);
  }
}

/**
 * Arguments: x, wy, wx, bandsY, bandsX, y, D, lead, inH, inW, outW, accumulate. A chunk is one row of y.
 */
export function resample(step: usize, chunk: u32): void {
  const D = word(step, 6), lead = word(step, 7), row: usize = D << 2, accumulate = word(step, 11);
  const y = word(step, 5) + chunk * row, x: usize = word(step, 0);
  if (chunk < lead) {
    for (let c: u32 = 0; c < D; c += 4) {
      const at = <usize>c << 2, left = D - c;
      let v = loadUpTo(x + chunk * row + at, left);
      if (accumulate) v = f32x4.add(v, loadUpTo(y + at, left));
      storeUpTo(y + at, v, left);
    }
    return;
  }
  const inH = word(step, 8), inW = word(step, 9), cell = chunk - lead, oy = cell / word(step, 10);
  const ox = cell - oy * word(step, 10);
  const bandsY = word(step, 3) + (<usize>oy << 3), bandsX = word(step, 4) + (<usize>ox << 3);
  const firstY = load<u32>(bandsY), lastY = load<u32>(bandsY, 4), firstX = load<u32>(bandsX), lastX = load<u32>(bandsX, 4);
  for (let c: u32 = 0; c < D; c += 4) {
    const at = <usize>c << 2, left = D - c;
    let s = accumulate ? loadUpTo(y + at, left) : f32x4.splat(0);
    for (let iy = firstY; iy < lastY; iy++) {
      const wy = load<f32>(word(step, 1) + (<usize>(oy * inH + iy) << 2));
      for (let ix = firstX; ix < lastX; ix++) {
        const w = f32x4.splat(wy * load<f32>(word(step, 2) + (<usize>(ox * inW + ix) << 2)));
        s = f32x4.relaxed_madd(w, loadUpTo(x + <usize>(lead + iy * inW + ix) * row + at, left), s);
      }
    }
    storeUpTo(y + at, s, left);
  }
}

/** Arguments: x, y, row bytes, start, stride, count, target, rows a chunk. */
export function gatherRows(step: usize, chunk: u32): void {
  const bytes: usize = word(step, 2), last = min((chunk + 1) * word(step, 7), word(step, 5));
  for (let i = chunk * word(step, 7); i < last; i++) {
    memory.copy(
      word(step, 1) + (word(step, 6) + i) * bytes, word(step, 0) + (word(step, 3) + i * word(step, 4)) * bytes, bytes,
    );
  }
}

/** Arguments: y, x, D, rows of x, start, stride, count, target, accumulate, rows a chunk. */
export function scatterRows(step: usize, chunk: u32): void {
  const D = word(step, 2), bytes: usize = D << 2, start = word(step, 4), stride = word(step, 5), count = word(step, 6);
  const last = min((chunk + 1) * word(step, 9), word(step, 3));
  for (let r = chunk * word(step, 9); r < last; r++) {
    const x = word(step, 1) + r * bytes, i = (r - start) / stride;
    const hit = r >= start && i * stride == r - start && i < count, y = word(step, 0) + (word(step, 7) + i) * bytes;
    if (!word(step, 8)) {
      if (hit) memory.copy(x, y, bytes);
      else memory.fill(x, 0, bytes);
    } else if (hit) addRows(x, x, y, D);
  }
}
