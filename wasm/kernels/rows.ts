// Functions over rows: each an exported function of its own with paired stores, which V8 turns into 256-bit
// arithmetic in turbo mode (it decides function by function).
import { exp4, gelu4, geluDerivative4, laneSum, loadPart, storePart } from "./math";

/** y = GELU(x) over n elements; y may be x. `k`: constants, which a longer pass reads less often. */
export function geluRow(x: usize, y: usize, n: u32, k: usize): void {
  for (; n >= 16; n -= 16, x += 64, y += 64) {
    const v0 = gelu4(v128.load(x), k), v1 = gelu4(v128.load(x, 16), k);
    const v2 = gelu4(v128.load(x, 32), k), v3 = gelu4(v128.load(x, 48), k);
    v128.store(y, v0);
    v128.store(y, v1, 16);
    v128.store(y, v2, 32);
    v128.store(y, v3, 48);
  }
  if (n) geluEnd(x, y, n, k);
}

/** pre = x and y = GELU(x) over n elements: both leave while x is at hand. */
export function geluKeepingRow(x: usize, pre: usize, y: usize, n: u32, k: usize): void {
  for (; n >= 16; n -= 16, x += 64, pre += 64, y += 64) {
    const x0 = v128.load(x), x1 = v128.load(x, 16), x2 = v128.load(x, 32), x3 = v128.load(x, 48);
    const v0 = gelu4(x0, k), v1 = gelu4(x1, k), v2 = gelu4(x2, k), v3 = gelu4(x3, k);
    v128.store(pre, x0);
    v128.store(pre, x1, 16);
    v128.store(pre, x2, 32);
    v128.store(pre, x3, 48);
    v128.store(y, v0);
    v128.store(y, v1, 16);
    v128.store(y, v2, 32);
    v128.store(y, v3, 48);
  }
  if (!n) return;
  memory.copy(pre, x, n << 2);
  geluEnd(x, y, n, k);
}

function geluEnd(x: usize, y: usize, n: u32, k: usize): void {
  for (; n >= 4; n -= 4, x += 16, y += 16) v128.store(y, gelu4(v128.load(x), k));
  if (n) storePart(y, gelu4(loadPart(x, n, 0), k), n);
}

/** y = d·GELU′(x); y may be d. */
export function geluBackwardRow(d: usize, x: usize, y: usize, n: u32, k: usize): void {
  for (; n >= 16; n -= 16, d += 64, x += 64, y += 64) {
    const v0 = f32x4.mul(v128.load(d), geluDerivative4(v128.load(x), k));
    const v1 = f32x4.mul(v128.load(d, 16), geluDerivative4(v128.load(x, 16), k));
    const v2 = f32x4.mul(v128.load(d, 32), geluDerivative4(v128.load(x, 32), k));
    const v3 = f32x4.mul(v128.load(d, 48), geluDerivative4(v128.load(x, 48), k));
    v128.store(y, v0);
    v128.store(y, v1, 16);
    v128.store(y, v2, 32);
    v128.store(y, v3, 48);
  }
  if (n) geluBackwardEnd(d, x, y, n, k);
}

function geluBackwardEnd(d: usize, x: usize, y: usize, n: u32, k: usize): void {
  for (; n >= 4; n -= 4, d += 16, x += 16, y += 16) {
    v128.store(y, f32x4.mul(v128.load(d), geluDerivative4(v128.load(x), k)));
  }
  if (n) storePart(y, f32x4.mul(loadPart(d, n, 0), geluDerivative4(loadPart(x, n, 0), k)), n);
}

/** y = factor·x + a, each rounded; `factor` read from memory; y may be a. */
export function scaledSumRow(x: usize, factor: usize, a: usize, y: usize, n: u32): void {
  for (; n >= 16; n -= 16, x += 64, a += 64, y += 64) {
    const f = v128.load32_splat(factor);
    const v0 = f32x4.add(f32x4.mul(v128.load(x), f), v128.load(a));
    const v1 = f32x4.add(f32x4.mul(v128.load(x, 16), f), v128.load(a, 16));
    const v2 = f32x4.add(f32x4.mul(v128.load(x, 32), f), v128.load(a, 32));
    const v3 = f32x4.add(f32x4.mul(v128.load(x, 48), f), v128.load(a, 48));
    v128.store(y, v0);
    v128.store(y, v1, 16);
    v128.store(y, v2, 32);
    v128.store(y, v3, 48);
  }
  const f = v128.load32_splat(factor);
  for (; n >= 4; n -= 4, x += 16, a += 16, y += 16) v128.store(y, f32x4.add(f32x4.mul(v128.load(x), f), v128.load(a)));
  if (n) storePart(y, f32x4.add(f32x4.mul(loadPart(x, n, 0), f), loadPart(a, n, 0)), n);
}

/** y = factor·x; `factor` read from memory; y may be x. */
export function scaledRow(x: usize, factor: usize, y: usize, n: u32): void {
  for (; n >= 16; n -= 16, x += 64, y += 64) {
    const f = v128.load32_splat(factor);
    const v0 = f32x4.mul(v128.load(x), f), v1 = f32x4.mul(v128.load(x, 16), f);
    const v2 = f32x4.mul(v128.load(x, 32), f), v3 = f32x4.mul(v128.load(x, 48), f);
    v128.store(y, v0);
    v128.store(y, v1, 16);
    v128.store(y, v2, 32);
    v128.store(y, v3, 48);
  }
  const f = v128.load32_splat(factor);
  for (; n >= 4; n -= 4, x += 16, y += 16) v128.store(y, f32x4.mul(v128.load(x), f));
  if (n) storePart(y, f32x4.mul(loadPart(x, n, 0), f), n);
}

/** y = e^(scale·x − shift); y may be x. */
export function expRow(x: usize, y: usize, n: u32, scale: usize, shift: usize, k: usize): void {
  for (; n >= 16; n -= 16, x += 64, y += 64) {
    const factor = v128.load32_splat(scale), offset = v128.load32_splat(shift);
    const v0 = exp4(f32x4.sub(f32x4.mul(v128.load(x), factor), offset), k);
    const v1 = exp4(f32x4.sub(f32x4.mul(v128.load(x, 16), factor), offset), k);
    const v2 = exp4(f32x4.sub(f32x4.mul(v128.load(x, 32), factor), offset), k);
    const v3 = exp4(f32x4.sub(f32x4.mul(v128.load(x, 48), factor), offset), k);
    v128.store(y, v0);
    v128.store(y, v1, 16);
    v128.store(y, v2, 32);
    v128.store(y, v3, 48);
  }
  if (n) expEnd(x, y, n, load<f32>(scale), load<f32>(shift), k);
}

function expEnd(x: usize, y: usize, n: u32, scale: f32, shift: f32, k: usize): void {
  const factor = f32x4.splat(scale), offset = f32x4.splat(shift);
  for (; n >= 4; n -= 4, x += 16, y += 16) {
    v128.store(y, exp4(f32x4.sub(f32x4.mul(v128.load(x), factor), offset), k));
  }
  if (n) storePart(y, exp4(f32x4.sub(f32x4.mul(loadPart(x, n, 0), factor), offset), k), n);
}

/** Σ x. */
export function sumRow(x: usize, n: u32): f32 {
  let s0 = f32x4.splat(0), s1 = s0, s2 = s0, s3 = s0;
  for (; n >= 16; n -= 16, x += 64) {
    s0 = f32x4.add(s0, v128.load(x));
    s1 = f32x4.add(s1, v128.load(x, 16));
    s2 = f32x4.add(s2, v128.load(x, 32));
    s3 = f32x4.add(s3, v128.load(x, 48));
  }
  for (; n >= 4; n -= 4, x += 16) s0 = f32x4.add(s0, v128.load(x));
  if (n) s1 = f32x4.add(s1, loadPart(x, n, 0));
  return laneSum(f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3)));
}
