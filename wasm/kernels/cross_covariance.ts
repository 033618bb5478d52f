// Cross-covariance attention; a chunk is one head of one image, whose [d, d] matrices stay in cache.
import { constants, scratch } from "./context";
import { exp4, laneSum, loadUpTo, storeUpTo } from "./math";
import { word } from "./step";

/** Norms of channels are at least this. */
const LEAST_NORM: f32 = 1e-12;

/** Bytes of a row of a [d, d] matrix: whole vectors. */
// @ts-ignore: decorator
@inline
function rowBytes(d: u32): usize {
  return <usize>((d + 3) & ~3) << 2;
}

/** sums[i, j] = Σ_n a[n, i]·b[n, j] over N rows of the given strides. */
function products(sums: usize, a: usize, aStride: usize, b: usize, bStride: usize, N: u32, d: u32): void {
  const row = rowBytes(d);
  memory.fill(sums, 0, d * row);
  let n: u32 = 0;
  for (; n + 2 <= N; n += 2, a += 2 * aStride, b += 2 * bStride) { // two tokens for each load of a sum
    for (let i: u32 = 0; i < d; i++) {
      const a0 = v128.load32_splat(a + (<usize>i << 2)), a1 = v128.load32_splat(a + aStride + (<usize>i << 2));
      const s = sums + i * row;
      for (let j: u32 = 0; j < d; j += 4) {
        const at = <usize>j << 2, left = d - j;
        const v = f32x4.relaxed_madd(a0, loadUpTo(b + at, left), v128.load(s + at));
        v128.store(s + at, f32x4.relaxed_madd(a1, loadUpTo(b + bStride + at, left), v));
      }
    }
  }
  if (n == N) return;
  for (let i: u32 = 0; i < d; i++) {
    const a0 = v128.load32_splat(a + (<usize>i << 2)), s = sums + i * row;
    for (let j: u32 = 0; j < d; j += 4) {
      const at = <usize>j << 2;
      v128.store(s + at, f32x4.relaxed_madd(a0, loadUpTo(b + at, d - j), v128.load(s + at)));
    }
  }
}

/** y[n, j] = Σ_i x[n, i]·m[i, j] − minus[j]·z[n, j]; without the last term where minus is 0. */
function apply(
  y: usize, yStride: usize, x: usize, xStride: usize, m: usize, N: u32, d: u32, minus: usize, z: usize, zStride: usize,
): void {
  const row = rowBytes(d);
  for (let n: u32 = 0; n < N; n++, y += yStride, x += xStride, z += zStride) {
    for (let j: u32 = 0; j < d; j += 4) {
      const at = <usize>j << 2, left = d - j;
      let s = f32x4.splat(0);
      if (minus) s = f32x4.neg(f32x4.mul(v128.load(minus + at), loadUpTo(z + at, left)));
      for (let i: u32 = 0; i < d; i++) {
        s = f32x4.relaxed_madd(v128.load32_splat(x + (<usize>i << 2)), v128.load(m + i * row + at), s);
      }
      storeUpTo(y + at, s, left);
    }
  }
}

/** norms[i] = max(√Σ_n x[n, i]², 10⁻¹²) */
function channelNorms(norms: usize, x: usize, stride: usize, N: u32, d: u32): void {
  for (let i: u32 = 0; i < d; i += 4) {
    const at = <usize>i << 2, left = d - i;
    let s = f32x4.splat(0), from = x + at;
    for (let n: u32 = 0; n < N; n++, from += stride) {
      const v = loadUpTo(from, left);
      s = f32x4.relaxed_madd(v, v, s);
    }
    storeUpTo(norms + at, f32x4.max(f32x4.sqrt(s), f32x4.splat(LEAST_NORM)), left);
  }
}

/** probs[i, :] = softmax(temperature·cosines[i, :]) in padded rows, whose padding becomes 0; cosines are dense. */
function softmax(probs: usize, cosines: usize, temperature: f32, d: u32): void {
  const row = rowBytes(d), t = f32x4.splat(temperature);
  for (let i: u32 = 0; i < d; i++) {
    const from = cosines + <usize>i * (d << 2), to = probs + i * row;
    let largest: f32 = -Infinity;
    for (let j: u32 = 0; j < d; j++) largest = max(largest, temperature * load<f32>(from + (<usize>j << 2)));
    const shift = f32x4.splat(largest);
    let total = f32x4.splat(0);
    for (let j: u32 = 0; j < d; j += 4) {
      const at = <usize>j << 2, left = d - j;
      let v = exp4(f32x4.sub(f32x4.mul(t, loadUpTo(from + at, left)), shift), constants);
      if (left < 4) v = v128.and(v, lanes(left));
      total = f32x4.add(total, v);
      v128.store(to + at, v);
    }
    const scale = f32x4.splat(1 / laneSum(total));
    for (let j: u32 = 0; j < d; j += 4) {
      const at = to + (<usize>j << 2);
      v128.store(at, f32x4.mul(scale, v128.load(at)));
    }
  }
}

/** All bits of the first `count` lanes. */
function lanes(count: u32): v128 {
  return i32x4.lt_s(i32x4(0, 1, 2, 3), i32x4.splat(count));
}

/** to[j, i] = from[i, j], both in padded rows; padding becomes 0. */
function transpose(to: usize, from: usize, d: u32): void {
  const row = rowBytes(d);
  memory.fill(to, 0, d * row);
  for (let i: u32 = 0; i < d; i++) {
    for (let j: u32 = 0; j < d; j++) {
      store<f32>(to + j * row + (<usize>i << 2), load<f32>(from + i * row + (<usize>j << 2)));
    }
  }
}

/**
 * Arguments: qkv, temperature, y, cosines, norms, tokens, heads, d. Scratch: two padded [d, d] matrices.
 */
export function crossCovariance(step: usize, chunk: u32): void {
  const N = word(step, 5), H = word(step, 6), d = word(step, 7), row = rowBytes(d);
  const image = chunk / H, head = chunk - image * H, D = H * d, stride: usize = 3 * D << 2;
  const q = word(step, 0) + <usize>image * N * stride + (<usize>(head * d) << 2), k = q + (D << 2), v = k + (D << 2);
  const norms = word(step, 4) + <usize>chunk * (2 * d << 2), cosines = word(step, 3) + <usize>chunk * (d * d << 2);
  const first = scratch, second = scratch + d * row;
  channelNorms(norms, q, stride, N, d);
  channelNorms(norms + (d << 2), k, stride, N, d);
  products(first, q, stride, k, stride, N, d);
  for (let i: u32 = 0; i < d; i++) {
    const ofQ = f32x4.splat(load<f32>(norms + (<usize>i << 2)));
    for (let j: u32 = 0; j < d; j += 4) {
      const at = <usize>j << 2, left = d - j;
      const both = f32x4.mul(ofQ, loadUpTo(norms + (d << 2) + at, left, 1));
      storeUpTo(cosines + <usize>i * (d << 2) + at, f32x4.div(v128.load(first + i * row + at), both), left);
    }
  }
  softmax(first, cosines, load<f32>(word(step, 1) + (<usize>head << 2)), d);
  transpose(second, first, d);
  const y = word(step, 2) + (<usize>(image * N * D + head * d) << 2);
  apply(y, D << 2, v, stride, second, N, d, 0, 0, 0);
}

/**
 * Arguments: dy, qkv, temperature, cosines, norms, dqkv, gradients of the temperature for each chunk (or 0), tokens, heads, d.
 * Scratch: three padded [d, d] matrices and two padded rows.
 */
export function crossCovarianceBackward(step: usize, chunk: u32): void {
  const N = word(step, 7), H = word(step, 8), d = word(step, 9), row = rowBytes(d);
  const image = chunk / H, head = chunk - image * H, D = H * d, stride: usize = 3 * D << 2;
  const begin = <usize>image * N * stride + (<usize>(head * d) << 2);
  const q = word(step, 1) + begin, k = q + (D << 2), v = k + (D << 2);
  const dq = word(step, 5) + begin, dk = dq + (D << 2), dv = dk + (D << 2);
  const dy = word(step, 0) + (<usize>(image * N * D + head * d) << 2);
  const norms = word(step, 4) + <usize>chunk * (2 * d << 2), cosines = word(step, 3) + <usize>chunk * (d * d << 2);
  const probs = scratch, a = probs + d * row, turned = a + d * row, ofQ = turned + d * row, ofK = ofQ + row;
  const temperature = load<f32>(word(step, 2) + (<usize>head << 2));
  softmax(probs, cosines, temperature, d);
  apply(dv, stride, dy, D << 2, probs, N, d, 0, 0, 0);
  products(a, dy, D << 2, v, stride, N, d); // dP
  memory.fill(ofQ, 0, 2 * row);
  let dtemperature: f32 = 0;
  for (let i: u32 = 0; i < d; i++) {
    const p = probs + i * row, da = a + i * row, c = cosines + <usize>i * (d << 2);
    let sum = f32x4.splat(0);
    for (let at: usize = 0; at < row; at += 16) sum = f32x4.relaxed_madd(v128.load(p + at), v128.load(da + at), sum);
    const mean = f32x4.splat(laneSum(sum)), normQ = load<f32>(norms + (<usize>i << 2)), t = f32x4.splat(temperature);
    let ofThis = f32x4.splat(0), warmth = f32x4.splat(0);
    for (let j: u32 = 0; j < d; j += 4) {
      const at = <usize>j << 2, left = d - j, cosine = loadUpTo(c + at, left);
      const ds = f32x4.mul(v128.load(p + at), f32x4.sub(v128.load(da + at), mean)); // 0 in the padding, as p is
      const dc = f32x4.mul(t, ds), product = f32x4.mul(dc, cosine);
      warmth = f32x4.relaxed_madd(ds, cosine, warmth);
      ofThis = f32x4.add(ofThis, product);
      const normK = loadUpTo(norms + (d << 2) + at, left, 1);
      v128.store(da + at, f32x4.div(dc, f32x4.mul(f32x4.splat(normQ), normK)));
      v128.store(ofK + at, f32x4.add(v128.load(ofK + at), f32x4.div(product, f32x4.mul(normK, normK))));
    }
    store<f32>(ofQ + (<usize>i << 2), laneSum(ofThis) / (normQ * normQ));
    dtemperature += laneSum(warmth);
  }
  if (word(step, 6)) store<f32>(word(step, 6) + (<usize>chunk << 2), dtemperature);
  transpose(turned, a, d);
  apply(dq, stride, k, stride, turned, N, d, ofQ, q, stride);
  apply(dk, stride, q, stride, a, N, d, ofK, k, stride);
}
