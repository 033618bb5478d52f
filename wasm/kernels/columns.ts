// Softmax down columns, forward and backward: sixteen queries side by side, a key a row, so that nothing is added across a
// vector. Each an exported function of its own with paired stores, which V8 turns into 256-bit arithmetic in turbo mode.
import { power4 } from "./math";

/**
 * Sixteen columns of n ≥ 1 rows: s ← 2^(factor·s − largest), with `shifts` ← −largest of factor·s and `sums` ← Σ of the results.
 * `factor` > 0, read from memory.
 */
export function softmaxColumns(s: usize, stride: usize, n: u32, factor: usize, shifts: usize, sums: usize, k: usize): void {
  let p = s;
  let m0 = v128.load(p), m1 = v128.load(p, 16), m2 = v128.load(p, 32), m3 = v128.load(p, 48);
  for (let r = n - 1; r; r--) {
    p += stride;
    m0 = f32x4.pmax(m0, v128.load(p));
    m1 = f32x4.pmax(m1, v128.load(p, 16));
    m2 = f32x4.pmax(m2, v128.load(p, 32));
    m3 = f32x4.pmax(m3, v128.load(p, 48));
  }
  // NaN may get lost here, but not in the powers.
  const o0 = f32x4.mul(m0, f32x4.neg(v128.load32_splat(factor))), o1 = f32x4.mul(m1, f32x4.neg(v128.load32_splat(factor)));
  const o2 = f32x4.mul(m2, f32x4.neg(v128.load32_splat(factor))), o3 = f32x4.mul(m3, f32x4.neg(v128.load32_splat(factor)));
  v128.store(shifts, o0);
  v128.store(shifts, o1, 16);
  v128.store(shifts, o2, 32);
  v128.store(shifts, o3, 48);
  let s0 = f32x4.splat(0), s1 = s0, s2 = s0, s3 = s0;
  for (p = s; n; n--, p += stride) {
    const f = v128.load32_splat(factor);
    const e0 = power4(f32x4.relaxed_madd(f, v128.load(p), v128.load(shifts)), k);
    const e1 = power4(f32x4.relaxed_madd(f, v128.load(p, 16), v128.load(shifts, 16)), k);
    const e2 = power4(f32x4.relaxed_madd(f, v128.load(p, 32), v128.load(shifts, 32)), k);
    const e3 = power4(f32x4.relaxed_madd(f, v128.load(p, 48), v128.load(shifts, 48)), k);
    s0 = f32x4.add(s0, e0);
    s1 = f32x4.add(s1, e1);
    s2 = f32x4.add(s2, e2);
    s3 = f32x4.add(s3, e3);
    v128.store(p, e0);
    v128.store(p, e1, 16);
    v128.store(p, e2, 32);
    v128.store(p, e3, 48);
  }
  v128.store(sums, s0);
  v128.store(sums, s1, 16);
  v128.store(sums, s2, 32);
  v128.store(sums, s3, 48);
}

/** Sixteen columns of n rows: s ← P = 2^(factor·s + shift), d ← scale·P∘(d − delta); factor and scale read from memory. */
export function gradientColumns(
  s: usize, d: usize, stride: usize, n: u32, factor: usize, scale: usize, shifts: usize, deltas: usize, k: usize,
): void {
  for (; n; n--, s += stride, d += stride) {
    const f = v128.load32_splat(factor), g = v128.load32_splat(scale);
    const p0 = power4(f32x4.relaxed_madd(f, v128.load(s), v128.load(shifts)), k);
    const p1 = power4(f32x4.relaxed_madd(f, v128.load(s, 16), v128.load(shifts, 16)), k);
    const p2 = power4(f32x4.relaxed_madd(f, v128.load(s, 32), v128.load(shifts, 32)), k);
    const p3 = power4(f32x4.relaxed_madd(f, v128.load(s, 48), v128.load(shifts, 48)), k);
    const d0 = f32x4.mul(f32x4.mul(p0, g), f32x4.sub(v128.load(d), v128.load(deltas)));
    const d1 = f32x4.mul(f32x4.mul(p1, g), f32x4.sub(v128.load(d, 16), v128.load(deltas, 16)));
    const d2 = f32x4.mul(f32x4.mul(p2, g), f32x4.sub(v128.load(d, 32), v128.load(deltas, 32)));
    const d3 = f32x4.mul(f32x4.mul(p3, g), f32x4.sub(v128.load(d, 48), v128.load(deltas, 48)));
    v128.store(s, p0);
    v128.store(s, p1, 16);
    v128.store(s, p2, 32);
    v128.store(s, p3, 48);
    v128.store(d, d0);
    v128.store(d, d1, 16);
    v128.store(d, d2, 32);
    v128.store(d, d3, 48);
  }
}
