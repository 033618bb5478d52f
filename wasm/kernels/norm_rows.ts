// Rows of layer norm: each an exported function of its own with paired stores, which V8 turns into 256-bit arithmetic in turbo
// mode (it decides function by function). Sums across a vector go through `temp`, 64 bytes of scratch.
import { loadPart, storePart } from "./math";

/** Sum of sixteen elements, pairwise. */
// @ts-ignore: decorator
@inline
function sum16(p: usize): f32 {
  const v = f32x4.add(f32x4.add(v128.load(p), v128.load(p, 16)), f32x4.add(v128.load(p, 32), v128.load(p, 48)));
  return (f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 1)) + (f32x4.extract_lane(v, 2) + f32x4.extract_lane(v, 3));
}

/** Σ x. */
export function rowTotal(x: usize, n: u32, temp: usize): f32 {
  let s0 = f32x4.splat(0), s1 = s0, s2 = s0, s3 = s0;
  for (; n >= 16; n -= 16, x += 64) {
    s0 = f32x4.add(s0, v128.load(x));
    s1 = f32x4.add(s1, v128.load(x, 16));
    s2 = f32x4.add(s2, v128.load(x, 32));
    s3 = f32x4.add(s3, v128.load(x, 48));
  }
  v128.store(temp, s0);
  v128.store(temp, s1, 16);
  v128.store(temp, s2, 32);
  v128.store(temp, s3, 48);
  let total = sum16(temp);
  for (; n; n--, x += 4) total += load<f32>(x);
  return total;
}

/** Σ (x − mean)²; mean read from memory. */
export function rowDeviations(x: usize, n: u32, mean: usize, temp: usize): f32 {
  let s0 = f32x4.splat(0), s1 = s0, s2 = s0, s3 = s0;
  for (; n >= 16; n -= 16, x += 64) {
    const m = v128.load32_splat(mean);
    const d0 = f32x4.sub(v128.load(x), m), d1 = f32x4.sub(v128.load(x, 16), m);
    const d2 = f32x4.sub(v128.load(x, 32), m), d3 = f32x4.sub(v128.load(x, 48), m);
    s0 = f32x4.relaxed_madd(d0, d0, s0);
    s1 = f32x4.relaxed_madd(d1, d1, s1);
    s2 = f32x4.relaxed_madd(d2, d2, s2);
    s3 = f32x4.relaxed_madd(d3, d3, s3);
  }
  v128.store(temp, s0);
  v128.store(temp, s1, 16);
  v128.store(temp, s2, 32);
  v128.store(temp, s3, 48);
  let total = sum16(temp);
  for (; n; n--, x += 4) {
    const d: f32 = load<f32>(x) - load<f32>(mean);
    total += d * d;
  }
  return total;
}

/** y = (x − mean)·rstd·weight + bias; stats: mean and rstd. */
export function normalizeRow(x: usize, stats: usize, weight: usize, bias: usize, y: usize, n: u32): void {
  for (; n >= 16; n -= 16, x += 64, weight += 64, bias += 64, y += 64) {
    const m = v128.load32_splat(stats), s = v128.load32_splat(stats, 4);
    const u0 = f32x4.mul(f32x4.sub(v128.load(x), m), s), u1 = f32x4.mul(f32x4.sub(v128.load(x, 16), m), s);
    const u2 = f32x4.mul(f32x4.sub(v128.load(x, 32), m), s), u3 = f32x4.mul(f32x4.sub(v128.load(x, 48), m), s);
    const y0 = f32x4.relaxed_madd(u0, v128.load(weight), v128.load(bias));
    const y1 = f32x4.relaxed_madd(u1, v128.load(weight, 16), v128.load(bias, 16));
    const y2 = f32x4.relaxed_madd(u2, v128.load(weight, 32), v128.load(bias, 32));
    const y3 = f32x4.relaxed_madd(u3, v128.load(weight, 48), v128.load(bias, 48));
    v128.store(y, y0);
    v128.store(y, y1, 16);
    v128.store(y, y2, 32);
    v128.store(y, y3, 48);
  }
  const m = v128.load32_splat(stats), s = v128.load32_splat(stats, 4);
  for (; n >= 4; n -= 4, x += 16, weight += 16, bias += 16, y += 16) {
    const u = f32x4.mul(f32x4.sub(v128.load(x), m), s);
    v128.store(y, f32x4.relaxed_madd(u, v128.load(weight), v128.load(bias)));
  }
  if (!n) return;
  const u = f32x4.mul(f32x4.sub(loadPart(x, n, 0), m), s);
  storePart(y, f32x4.relaxed_madd(u, loadPart(weight, n, 0), loadPart(bias, n, 0)), n);
}

/** dweight += dy·x̂ and dbias += dy; sums[0] = Σ dy·weight, sums[1] = Σ dy·weight·x̂. `temp`: 128 bytes. */
export function parameterGradientsRow(
  dy: usize, x: usize, stats: usize, weight: usize, dweight: usize, dbias: usize, n: u32, sums: usize, temp: usize,
): void {
  let s0 = f32x4.splat(0), s1 = s0, s2 = s0, s3 = s0, p0 = s0, p1 = s0, p2 = s0, p3 = s0;
  for (; n >= 16; n -= 16, dy += 64, x += 64, weight += 64, dweight += 64, dbias += 64) {
    const m = v128.load32_splat(stats), s = v128.load32_splat(stats, 4);
    const d0 = v128.load(dy), d1 = v128.load(dy, 16), d2 = v128.load(dy, 32), d3 = v128.load(dy, 48);
    const u0 = f32x4.mul(f32x4.sub(v128.load(x), m), s), u1 = f32x4.mul(f32x4.sub(v128.load(x, 16), m), s);
    const u2 = f32x4.mul(f32x4.sub(v128.load(x, 32), m), s), u3 = f32x4.mul(f32x4.sub(v128.load(x, 48), m), s);
    const t0 = f32x4.mul(d0, v128.load(weight)), t1 = f32x4.mul(d1, v128.load(weight, 16));
    const t2 = f32x4.mul(d2, v128.load(weight, 32)), t3 = f32x4.mul(d3, v128.load(weight, 48));
    s0 = f32x4.add(s0, t0);
    s1 = f32x4.add(s1, t1);
    s2 = f32x4.add(s2, t2);
    s3 = f32x4.add(s3, t3);
    p0 = f32x4.relaxed_madd(t0, u0, p0);
    p1 = f32x4.relaxed_madd(t1, u1, p1);
    p2 = f32x4.relaxed_madd(t2, u2, p2);
    p3 = f32x4.relaxed_madd(t3, u3, p3);
    const w0 = f32x4.relaxed_madd(d0, u0, v128.load(dweight)), w1 = f32x4.relaxed_madd(d1, u1, v128.load(dweight, 16));
    const w2 = f32x4.relaxed_madd(d2, u2, v128.load(dweight, 32)), w3 = f32x4.relaxed_madd(d3, u3, v128.load(dweight, 48));
    const b0 = f32x4.add(d0, v128.load(dbias)), b1 = f32x4.add(d1, v128.load(dbias, 16));
    const b2 = f32x4.add(d2, v128.load(dbias, 32)), b3 = f32x4.add(d3, v128.load(dbias, 48));
    v128.store(dweight, w0);
    v128.store(dweight, w1, 16);
    v128.store(dweight, w2, 32);
    v128.store(dweight, w3, 48);
    v128.store(dbias, b0);
    v128.store(dbias, b1, 16);
    v128.store(dbias, b2, 32);
    v128.store(dbias, b3, 48);
  }
  v128.store(temp, s0);
  v128.store(temp, s1, 16);
  v128.store(temp, s2, 32);
  v128.store(temp, s3, 48);
  v128.store(temp, p0, 64);
  v128.store(temp, p1, 80);
  v128.store(temp, p2, 96);
  v128.store(temp, p3, 112);
  let scaled = sum16(temp), product = sum16(temp + 64);
  for (; n; n--, dy += 4, x += 4, weight += 4, dweight += 4, dbias += 4) {
    const d = load<f32>(dy), unit: f32 = (load<f32>(x) - load<f32>(stats)) * load<f32>(stats, 4), t: f32 = d * load<f32>(weight);
    scaled += t;
    product += t * unit;
    store<f32>(dweight, load<f32>(dweight) + d * unit);
    store<f32>(dbias, load<f32>(dbias) + d);
  }
  store<f32>(sums, scaled);
  store<f32>(sums, product, 4);
}

// @ts-ignore: decorator
@inline
function inputGradient4(dy: v128, x: v128, weight: v128, stats: usize, means: usize): v128 {
  const rstd = v128.load32_splat(stats, 4), unit = f32x4.mul(f32x4.sub(x, v128.load32_splat(stats)), rstd);
  const shifted = f32x4.sub(f32x4.mul(dy, weight), v128.load32_splat(means));
  return f32x4.mul(rstd, f32x4.relaxed_nmadd(unit, v128.load32_splat(means, 4), shifted));
}

/** dx = rstd·(dy·weight − means[0] − x̂·means[1]); dx may be dy. */
export function inputGradientRow(dy: usize, x: usize, stats: usize, weight: usize, means: usize, dx: usize, n: u32): void {
  for (; n >= 8; n -= 8, dy += 32, x += 32, weight += 32, dx += 32) {
    const v0 = inputGradient4(v128.load(dy), v128.load(x), v128.load(weight), stats, means);
    const v1 = inputGradient4(v128.load(dy, 16), v128.load(x, 16), v128.load(weight, 16), stats, means);
    v128.store(dx, v0);
    v128.store(dx, v1, 16);
  }
  for (; n; n -= min(n, 3), dy += 12, x += 12, weight += 12, dx += 12) {
    const part = min(n, 3);
    storePart(dx, inputGradient4(loadPart(dy, part, 0), loadPart(x, part, 0), loadPart(weight, part, 0), stats, means), part);
  }
}

/** The same added to dx. */
export function addInputGradientRow(dy: usize, x: usize, stats: usize, weight: usize, means: usize, dx: usize, n: u32): void {
  for (; n >= 8; n -= 8, dy += 32, x += 32, weight += 32, dx += 32) {
    const v0 = inputGradient4(v128.load(dy), v128.load(x), v128.load(weight), stats, means);
    const v1 = inputGradient4(v128.load(dy, 16), v128.load(x, 16), v128.load(weight, 16), stats, means);
    const s0 = f32x4.add(v0, v128.load(dx)), s1 = f32x4.add(v1, v128.load(dx, 16));
    v128.store(dx, s0);
    v128.store(dx, s1, 16);
  }
  for (; n; n -= min(n, 3), dy += 12, x += 12, weight += 12, dx += 12) {
    const part = min(n, 3);
    const v = inputGradient4(loadPart(dy, part, 0), loadPart(x, part, 0), loadPart(weight, part, 0), stats, means);
    storePart(dx, f32x4.add(v, loadPart(dx, part, 0)), part);
  }
}
