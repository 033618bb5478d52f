// Cross-covariance attention; a chunk is one head of one image, whose [d, d] matrices stay in cache.
import { constants, scratch } from "./context";
import { exp4, laneSum, loadUpTo, storeUpTo } from "./math";
import { word } from "./step";

/** Norms of channels are at least this. */
const LEAST_NORM: f32 = 1e-12;

/** Floats of a padded row: whole blocks of 16, the columns that products compute at once. The padding is 0. */
// @ts-ignore: decorator
@inline
function padded(d: u32): u32 {
  return (d + 15) & ~15;
}

/** Rows of d floats, `stride` bytes apart, as padded rows one behind the other. */
function pack(to: usize, x: usize, stride: usize, N: u32, d: u32): void {
  const P = padded(d);
  for (let n: u32 = 0; n < N; n++, x += stride) {
    for (let c: u32 = 0; c < P; c += 4, to += 16) {
      v128.store(to, c < d ? loadUpTo(x + (<usize>c << 2), d - c) : f32x4.splat(0));
    }
  }
}

/** sums[i, j] = Σ_n a[n, i]·b[n, j], all in padded rows: two rows by 16 columns of sums at a time stay in registers. */
function products(sums: usize, a: usize, b: usize, N: u32, d: u32): void {
  const P = padded(d), row: usize = P << 2;
  for (let i: u32 = 0; i < d; i += 2) {
    for (let j: u32 = 0; j < P; j += 16) {
      let s0 = f32x4.splat(0), s1 = s0, s2 = s0, s3 = s0, t0 = s0, t1 = s0, t2 = s0, t3 = s0;
      let x = a + (<usize>i << 2), y = b + (<usize>j << 2);
      for (let n: u32 = 0; n < N; n++, x += row, y += row) {
        const x0 = v128.load32_splat(x), x1 = v128.load32_splat(x, 4);
        const y0 = v128.load(y), y1 = v128.load(y, 16), y2 = v128.load(y, 32), y3 = v128.load(y, 48);
        s0 = f32x4.relaxed_madd(x0, y0, s0);
        s1 = f32x4.relaxed_madd(x0, y1, s1);
        s2 = f32x4.relaxed_madd(x0, y2, s2);
        s3 = f32x4.relaxed_madd(x0, y3, s3);
        t0 = f32x4.relaxed_madd(x1, y0, t0);
        t1 = f32x4.relaxed_madd(x1, y1, t1);
        t2 = f32x4.relaxed_madd(x1, y2, t2);
        t3 = f32x4.relaxed_madd(x1, y3, t3);
      }
      const to = sums + i * row + (<usize>j << 2);
      v128.store(to, s0);
      v128.store(to, s1, 16);
      v128.store(to, s2, 32);
      v128.store(to, s3, 48);
      v128.store(to + row, t0); // with d odd the last row of the padding, which is 0
      v128.store(to + row, t1, 16);
      v128.store(to + row, t2, 32);
      v128.store(to + row, t3, 48);
    }
  }
}

/** Stores 16 columns from j on of a row of d floats, less minus[j]·z[j] where minus is not 0. */
// @ts-ignore: decorator
@inline
function storeBlock(y: usize, v0: v128, v1: v128, v2: v128, v3: v128, j: u32, d: u32, minus: usize, z: usize): void {
  const at = <usize>j << 2, left = d - j;
  if (minus) {
    v0 = f32x4.relaxed_nmadd(v128.load(minus + at), v128.load(z + at), v0);
    v1 = f32x4.relaxed_nmadd(v128.load(minus + at, 16), v128.load(z + at, 16), v1);
    v2 = f32x4.relaxed_nmadd(v128.load(minus + at, 32), v128.load(z + at, 32), v2);
    v3 = f32x4.relaxed_nmadd(v128.load(minus + at, 48), v128.load(z + at, 48), v3);
  }
  storeUpTo(y + at, v0, left);
  if (left > 4) storeUpTo(y + at + 16, v1, left - 4);
  if (left > 8) storeUpTo(y + at + 32, v2, left - 8);
  if (left > 12) storeUpTo(y + at + 48, v3, left - 12);
}

/** y[n, j] = Σ_i x[n, i]·m[i, j] − minus[j]·z[n, j], without the last term where minus is 0; y in rows `stride` bytes apart. */
function apply(y: usize, stride: usize, x: usize, m: usize, N: u32, d: u32, minus: usize, z: usize): void {
  const P = padded(d), row: usize = P << 2;
  for (let n: u32 = 0; n < N; n += 2, x += 2 * row, z += 2 * row, y += 2 * stride) {
    const next: usize = n + 1 < N ? row : 0; // the last of an odd number is computed twice
    for (let j: u32 = 0; j < P; j += 16) {
      let s0 = f32x4.splat(0), s1 = s0, s2 = s0, s3 = s0, t0 = s0, t1 = s0, t2 = s0, t3 = s0;
      let from = x, w = m + (<usize>j << 2);
      for (let i: u32 = 0; i < d; i++, from += 4, w += row) {
        const x0 = v128.load32_splat(from), x1 = v128.load32_splat(from + next);
        const w0 = v128.load(w), w1 = v128.load(w, 16), w2 = v128.load(w, 32), w3 = v128.load(w, 48);
        s0 = f32x4.relaxed_madd(x0, w0, s0);
        s1 = f32x4.relaxed_madd(x0, w1, s1);
        s2 = f32x4.relaxed_madd(x0, w2, s2);
        s3 = f32x4.relaxed_madd(x0, w3, s3);
        t0 = f32x4.relaxed_madd(x1, w0, t0);
        t1 = f32x4.relaxed_madd(x1, w1, t1);
        t2 = f32x4.relaxed_madd(x1, w2, t2);
        t3 = f32x4.relaxed_madd(x1, w3, t3);
      }
      storeBlock(y, s0, s1, s2, s3, j, d, minus, z);
      if (next) storeBlock(y + stride, t0, t1, t2, t3, j, d, minus, z + row);
    }
  }
}

/** norms[i] = max(√Σ_n x[n, i]², 10⁻¹²), dense; x in padded rows. */
function channelNorms(norms: usize, x: usize, N: u32, d: u32): void {
  const row: usize = padded(d) << 2;
  for (let i: u32 = 0; i < d; i += 4) {
    let s = f32x4.splat(0), at = x + (<usize>i << 2);
    for (let n: u32 = 0; n < N; n++, at += row) {
      const v = v128.load(at);
      s = f32x4.relaxed_madd(v, v, s);
    }
    storeUpTo(norms + (<usize>i << 2), f32x4.max(f32x4.sqrt(s), f32x4.splat(LEAST_NORM)), d - i);
  }
}

/** probs[i, :] = softmax(temperature·cosines[i, :]) in padded rows, whose padding becomes 0; cosines are dense. */
function softmax(probs: usize, cosines: usize, temperature: f32, d: u32): void {
  const row: usize = padded(d) << 2, t = f32x4.splat(temperature);
  for (let i: u32 = 0; i < d; i++) {
    const from = cosines + <usize>i * (d << 2), to = probs + i * row;
    memory.fill(to, 0, row);
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
  const row: usize = padded(d) << 2;
  memory.fill(to, 0, d * row);
  for (let i: u32 = 0; i < d; i++) {
    for (let j: u32 = 0; j < d; j++) {
      store<f32>(to + j * row + (<usize>i << 2), load<f32>(from + i * row + (<usize>j << 2)));
    }
  }
}

/**
 * Arguments: qkv, temperature, y, cosines, norms, tokens, heads, d. Scratch: two padded matrices of P rows, two of N.
 */
export function crossCovariance(step: usize, chunk: u32): void {
  const N = word(step, 5), H = word(step, 6), d = word(step, 7), P = padded(d), row: usize = P << 2;
  const image = chunk / H, head = chunk - image * H, D = H * d, stride: usize = 3 * D << 2;
  const q = word(step, 0) + <usize>image * N * stride + (<usize>(head * d) << 2);
  const norms = word(step, 4) + <usize>chunk * (2 * d << 2), cosines = word(step, 3) + <usize>chunk * (d * d << 2);
  const first = scratch, second = first + P * row, left = second + P * row, right = left + N * row;
  pack(left, q, stride, N, d);
  pack(right, q + (D << 2), stride, N, d);
  channelNorms(norms, left, N, d);
  channelNorms(norms + (d << 2), right, N, d);
  products(first, left, right, N, d);
  for (let i: u32 = 0; i < d; i++) {
    const ofQ = f32x4.splat(load<f32>(norms + (<usize>i << 2)));
    for (let j: u32 = 0; j < d; j += 4) {
      const at = <usize>j << 2, rest = d - j;
      const both = f32x4.mul(ofQ, loadUpTo(norms + (d << 2) + at, rest, 1));
      storeUpTo(cosines + <usize>i * (d << 2) + at, f32x4.div(v128.load(first + i * row + at), both), rest);
    }
  }
  softmax(first, cosines, load<f32>(word(step, 1) + (<usize>head << 2)), d);
  transpose(second, first, d);
  pack(left, q + (D << 3), stride, N, d); // v
  apply(word(step, 2) + (<usize>(image * N * D + head * d) << 2), D << 2, left, second, N, d, 0, 0);
}

/**
 * Arguments: dy, qkv, temperature, cosines, norms, dqkv, gradients of the temperature for each chunk (or 0), tokens, heads, d.
 * Scratch: three padded matrices of P rows, two padded rows, two padded matrices of N rows.
 */
export function crossCovarianceBackward(step: usize, chunk: u32): void {
  const N = word(step, 7), H = word(step, 8), d = word(step, 9), P = padded(d), row: usize = P << 2;
  const image = chunk / H, head = chunk - image * H, D = H * d, stride: usize = 3 * D << 2, part: usize = D << 2;
  const begin = <usize>image * N * stride + (<usize>(head * d) << 2);
  const q = word(step, 1) + begin, dq = word(step, 5) + begin;
  const norms = word(step, 4) + <usize>chunk * (2 * d << 2), cosines = word(step, 3) + <usize>chunk * (d * d << 2);
  const probs = scratch, a = probs + P * row, turned = a + P * row, ofQ = turned + P * row, ofK = ofQ + row;
  const left = ofK + row, right = left + N * row;
  const temperature = load<f32>(word(step, 2) + (<usize>head << 2));
  softmax(probs, cosines, temperature, d);
  pack(left, word(step, 0) + (<usize>(image * N * D + head * d) << 2), part, N, d); // dy
  pack(right, q + 2 * part, stride, N, d); // v
  apply(dq + 2 * part, stride, left, probs, N, d, 0, 0); // dv
  products(a, left, right, N, d); // dP
  memory.fill(ofQ, 0, 2 * row);
  let dtemperature: f32 = 0;
  for (let i: u32 = 0; i < d; i++) {
    const p = probs + i * row, da = a + i * row, c = cosines + <usize>i * (d << 2);
    let sum = f32x4.splat(0);
    for (let at: usize = 0; at < row; at += 16) sum = f32x4.relaxed_madd(v128.load(p + at), v128.load(da + at), sum);
    const mean = f32x4.splat(laneSum(sum)), normQ = load<f32>(norms + (<usize>i << 2)), t = f32x4.splat(temperature);
    let ofThis = f32x4.splat(0), warmth = f32x4.splat(0);
    for (let j: u32 = 0; j < d; j += 4) {
      const at = <usize>j << 2, rest = d - j, cosine = loadUpTo(c + at, rest);
      const ds = f32x4.mul(v128.load(p + at), f32x4.sub(v128.load(da + at), mean)); // 0 in the padding, as p is
      const dc = f32x4.mul(t, ds), product = f32x4.mul(dc, cosine);
      warmth = f32x4.relaxed_madd(ds, cosine, warmth);
      ofThis = f32x4.add(ofThis, product);
      const normK = loadUpTo(norms + (d << 2) + at, rest, 1);
      v128.store(da + at, f32x4.div(dc, f32x4.mul(f32x4.splat(normQ), normK)));
      v128.store(ofK + at, f32x4.add(v128.load(ofK + at), f32x4.div(product, f32x4.mul(normK, normK))));
    }
    store<f32>(ofQ + (<usize>i << 2), laneSum(ofThis) / (normQ * normQ));
    dtemperature += laneSum(warmth);
  }
  if (word(step, 6)) store<f32>(word(step, 6) + (<usize>chunk << 2), dtemperature);
  transpose(turned, a, d);
  pack(left, q, stride, N, d);
  pack(right, q + part, stride, N, d);
  apply(dq, stride, right, turned, N, d, ofQ, left);
  apply(dq + part, stride, left, a, N, d, ofK, right);
}
