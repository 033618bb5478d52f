// AdamW and the teacher's average over a run of elements: each an exported function of its own with paired stores, which V8
// turns into 256-bit arithmetic in turbo mode (it decides function by function).
import { loadPart, storePart } from "./math";

// Where `adamwRow` finds its scalars, in bytes.
const CLIP: usize = 0; // factor of the gradient
const DECAY: usize = 4; // 1 − lr·wd
const RATE: usize = 8; // lr / (1 − β₁ᵗ)
const ROOT: usize = 12; // 1/√(1 − β₂ᵗ)
const EPS: usize = 16;
const BETA1: usize = 20;
const REST1: usize = 24; // 1 − β₁
const BETA2: usize = 28;
const REST2: usize = 32; // 1 − β₂

// @ts-ignore: decorator
@inline
function mean4(g: v128, m: v128, k: usize): v128 {
  return f32x4.relaxed_madd(v128.load32_splat(k + BETA1), m, f32x4.mul(v128.load32_splat(k + REST1), g));
}

// @ts-ignore: decorator
@inline
function square4(g: v128, v: v128, k: usize): v128 {
  return f32x4.relaxed_madd(v128.load32_splat(k + BETA2), v, f32x4.mul(v128.load32_splat(k + REST2), f32x4.mul(g, g)));
}

// @ts-ignore: decorator
@inline
function next4(p: v128, mean: v128, square: v128, k: usize): v128 {
  const denominator = f32x4.relaxed_madd(f32x4.sqrt(square), v128.load32_splat(k + ROOT), v128.load32_splat(k + EPS));
  return f32x4.relaxed_nmadd(
    v128.load32_splat(k + RATE), f32x4.div(mean, denominator), f32x4.mul(p, v128.load32_splat(k + DECAY)),
  );
}

/** Writes the scalars of `adamwRow`, 36 bytes. */
export function writeScalars(
  k: usize, clip: f32, decay: f32, rate: f32, root: f32, eps: f32, beta1: f32, rest1: f32, beta2: f32, rest2: f32,
): void {
  store<f32>(k, clip, CLIP);
  store<f32>(k, decay, DECAY);
  store<f32>(k, rate, RATE);
  store<f32>(k, root, ROOT);
  store<f32>(k, eps, EPS);
  store<f32>(k, beta1, BETA1);
  store<f32>(k, rest1, REST1);
  store<f32>(k, beta2, BETA2);
  store<f32>(k, rest2, REST2);
}

/** m ← β₁·m + (1 − β₁)·g, v ← β₂·v + (1 − β₂)·g², p ← (1 − lr·wd)·p − rate·m/(√v·root + ε), g clipped; `k`: the scalars. */
export function adamwRow(p: usize, grad: usize, m: usize, v: usize, n: u32, k: usize): void {
  for (; n >= 8; n -= 8, p += 32, grad += 32, m += 32, v += 32) {
    const clip = v128.load32_splat(k + CLIP);
    const g0 = f32x4.mul(v128.load(grad), clip), g1 = f32x4.mul(v128.load(grad, 16), clip);
    const m0 = mean4(g0, v128.load(m), k), m1 = mean4(g1, v128.load(m, 16), k);
    const v0 = square4(g0, v128.load(v), k), v1 = square4(g1, v128.load(v, 16), k);
    const p0 = next4(v128.load(p), m0, v0, k), p1 = next4(v128.load(p, 16), m1, v1, k);
    v128.store(m, m0);
    v128.store(m, m1, 16);
    v128.store(v, v0);
    v128.store(v, v1, 16);
    v128.store(p, p0);
    v128.store(p, p1, 16);
  }
  while (n) {
    const part = min(n, 3);
    const g0 = f32x4.mul(loadPart(grad, part, 0), v128.load32_splat(k + CLIP));
    const m0 = mean4(g0, loadPart(m, part, 0), k), v0 = square4(g0, loadPart(v, part, 0), k);
    const p0 = next4(loadPart(p, part, 0), m0, v0, k);
    storePart(m, m0, part);
    storePart(v, v0, part);
    storePart(p, p0, part);
    n -= part;
    p += part << 2;
    grad += part << 2;
    m += part << 2;
    v += part << 2;
  }
}

/** target ← keep·target + take·source; both factors read from memory, one after the other. */
export function followRow(target: usize, source: usize, n: u32, factors: usize): void {
  for (; n >= 16; n -= 16, target += 64, source += 64) {
    const keep = v128.load32_splat(factors), take = v128.load32_splat(factors, 4);
    const t0 = f32x4.relaxed_madd(keep, v128.load(target), f32x4.mul(take, v128.load(source)));
    const t1 = f32x4.relaxed_madd(keep, v128.load(target, 16), f32x4.mul(take, v128.load(source, 16)));
    const t2 = f32x4.relaxed_madd(keep, v128.load(target, 32), f32x4.mul(take, v128.load(source, 32)));
    const t3 = f32x4.relaxed_madd(keep, v128.load(target, 48), f32x4.mul(take, v128.load(source, 48)));
    v128.store(target, t0);
    v128.store(target, t1, 16);
    v128.store(target, t2, 32);
    v128.store(target, t3, 48);
  }
  const keep = v128.load32_splat(factors), take = v128.load32_splat(factors, 4);
  while (n) {
    const part = min(n, 3);
    const t = f32x4.relaxed_madd(keep, loadPart(target, part, 0), f32x4.mul(take, loadPart(source, part, 0)));
    storePart(target, t, part);
    n -= part;
    target += part << 2;
    source += part << 2;
  }
}
