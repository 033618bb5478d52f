// exp, log and the normal distribution on four lanes, with their error bounds; loads and stores of ragged ends.

// Constants of the vector functions are read from a table in memory: V8 builds a vector constant from two 64-bit
// immediates at every use, inside loops too, which costs more than the arithmetic; a broadcasting load costs nothing.
// The table lies where `fillConstants` was told to put it; vector functions take its address as `k`.
const MAGIC: usize = 0;
const LOG2_E: usize = 4;
const LN2_HIGH: usize = 8;
const LN2_LOW: usize = 12;
const LOWEST: usize = 16;
const EXP: usize = 20; // coefficients of q, highest power first
const ONE: usize = 44;
const MINUS_HALF: usize = 48;
const FAR: usize = 52;
const SLOPE: usize = 56;
const TAIL: usize = 60;
const DENSITY: usize = 92;
const ZERO: usize = 96;

/** Writes the table of constants, 128 bytes. */
export function fillConstants(k: usize): void {
  store<f32>(k, 12582912.0, MAGIC); // 1.5·2²³: adding it leaves round(x) in the low bits
  store<f32>(k, 1.4426950408889634, LOG2_E);
  store<f32>(k, 0.693359375, LN2_HIGH); // ln 2 in two parts, the first with trailing zeros
  store<f32>(k, -2.1219444e-4, LN2_LOW);
  store<f32>(k, -87.3, LOWEST); // below lie subnormal results
  store<f32>(k, 0.001395080122165382, EXP);
  store<f32>(k, 0.008369073271751404, EXP + 4);
  store<f32>(k, 0.04166620224714279, EXP + 8);
  store<f32>(k, 0.16666516661643982, EXP + 12);
  store<f32>(k, 0.5, EXP + 16);
  store<f32>(k, 1.0, ONE);
  store<f32>(k, -0.5, MINUS_HALF);
  store<f32>(k, 7.0, FAR);
  store<f32>(k, 0.33, SLOPE);
  store<f32>(k, 0.04947048798203468, TAIL);
  store<f32>(k, -0.23992770910263062, TAIL + 4);
  store<f32>(k, 0.3713133633136749, TAIL + 8);
  store<f32>(k, -0.13445255160331726, TAIL + 12);
  store<f32>(k, 0.2108297497034073, TAIL + 16);
  store<f32>(k, 0.10797557234764099, TAIL + 20);
  store<f32>(k, 0.13499335944652557, TAIL + 24);
  store<f32>(k, -0.00020231651433277875, TAIL + 28);
  store<f32>(k, 0.3989422804014327, DENSITY); // 1/√(2π)
  store<f32>(k, 0.0, ZERO);
}

// @ts-ignore: decorator
@inline
function constant(k: usize, offset: usize): v128 {
  return v128.load32_splat(k + offset);
}

/**
 * eˣ for x ≤ 88. Relative error below 2e-7; arguments below -87.3 give e^-87.3 = 1.2e-38; NaN stays NaN.
 */
// @ts-ignore: decorator
@inline
export function exp4(x: v128, k: usize): v128 {
  // n = round(x / ln 2), r = x − n·ln 2.
  const magic = constant(k, MAGIC);
  x = f32x4.pmax(x, constant(k, LOWEST)); // one instruction, and NaN passes through
  const t = f32x4.relaxed_madd(x, constant(k, LOG2_E), magic);
  const n = f32x4.sub(t, magic);
  let r = f32x4.relaxed_nmadd(n, constant(k, LN2_HIGH), x);
  r = f32x4.relaxed_nmadd(n, constant(k, LN2_LOW), r);
  // 1 + (r + r²·q(r)), q fitted on |r| ≤ ln 2 / 2 with error 3e-9. Pairs of terms first: a chain of six would leave the
  // multipliers waiting.
  const r2 = f32x4.mul(r, r);
  const low = f32x4.relaxed_madd(constant(k, EXP + 12), r, constant(k, EXP + 16));
  const middle = f32x4.relaxed_madd(constant(k, EXP + 4), r, constant(k, EXP + 8));
  const high = f32x4.relaxed_madd(constant(k, EXP), r2, middle);
  const q = f32x4.relaxed_madd(high, r2, low);
  const p = f32x4.add(f32x4.relaxed_madd(q, r2, r), constant(k, ONE));
  return i32x4.add(p, i32x4.shl(t, 23));
}

/**
 * Φ(−t)·e^(t²/2) for t ≥ 0 (half the scaled complementary error function), relative error 3e-7; constant past t = 7,
 * where Φ(−t) < 2e-12. A polynomial in 1 / (1 + 0.33 t).
 */
// @ts-ignore: decorator
@inline
function tail4(t: v128, k: usize): v128 {
  const one = constant(k, ONE);
  const u = f32x4.div(one, f32x4.relaxed_madd(f32x4.pmin(t, constant(k, FAR)), constant(k, SLOPE), one));
  const u2 = f32x4.mul(u, u), u4 = f32x4.mul(u2, u2);
  const d = f32x4.relaxed_madd(constant(k, TAIL), u, constant(k, TAIL + 4));
  const c = f32x4.relaxed_madd(constant(k, TAIL + 8), u, constant(k, TAIL + 12));
  const b = f32x4.relaxed_madd(constant(k, TAIL + 16), u, constant(k, TAIL + 20));
  const a = f32x4.relaxed_madd(constant(k, TAIL + 24), u, constant(k, TAIL + 28));
  return f32x4.relaxed_madd(f32x4.relaxed_madd(d, u2, c), u4, f32x4.relaxed_madd(b, u2, a));
}

/** Φ(x) from e^(−x²/2). */
// @ts-ignore: decorator
@inline
function normal4(x: v128, density: v128, k: usize): v128 {
  const lower = f32x4.mul(density, tail4(f32x4.abs(x), k)); // Φ(−|x|)
  return v128.bitselect(lower, f32x4.sub(constant(k, ONE), lower), f32x4.lt(x, constant(k, ZERO)));
}

/** x·Φ(x): GELU in its exact form; relative error below 6e-7·(1 + x²/8): rounding x² costs the far tail some digits. */
// @ts-ignore: decorator
@inline
export function gelu4(x: v128, k: usize): v128 {
  const density = exp4(f32x4.mul(f32x4.mul(x, x), constant(k, MINUS_HALF)), k);
  return f32x4.mul(x, normal4(x, density, k));
}

/** Φ(x) + x·φ(x): the derivative of GELU; absolute error below 3e-7. */
// @ts-ignore: decorator
@inline
export function geluDerivative4(x: v128, k: usize): v128 {
  const density = exp4(f32x4.mul(f32x4.mul(x, x), constant(k, MINUS_HALF)), k);
  return f32x4.relaxed_madd(f32x4.mul(x, density), constant(k, DENSITY), normal4(x, density, k));
}

/** Natural logarithm of a positive, normal number, to a few ulp of float64. */
export function log(x: f64): f64 {
  const bits = reinterpret<i64>(x);
  let exponent = <i32>(bits >> 52) - 1023;
  let m = reinterpret<f64>((bits & 0x000fffffffffffff) | 0x3ff0000000000000);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    exponent += 1;
  }
  const s = (m - 1.0) / (m + 1.0), z = s * s; // log m = 2·atanh(s), |s| ≤ 0.172
  let sum: f64 = 0.0;
  for (let k = 21; k >= 1; k -= 2) sum = sum * z + 1.0 / <f64>k;
  return <f64>exponent * 0.6931471805599453 + 2.0 * s * sum;
}

/** Sum of the lanes, pairwise. */
// @ts-ignore: decorator
@inline
export function laneSum(v: v128): f32 {
  return (f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 1)) + (f32x4.extract_lane(v, 2) + f32x4.extract_lane(v, 3));
}

/** Sum of the lanes in float64. */
// @ts-ignore: decorator
@inline
export function laneSum64(v: v128): f64 {
  return (<f64>f32x4.extract_lane(v, 0) + <f64>f32x4.extract_lane(v, 1)) +
    (<f64>f32x4.extract_lane(v, 2) + <f64>f32x4.extract_lane(v, 3));
}

/** Largest lane. */
// @ts-ignore: decorator
@inline
export function laneMax(v: v128): f32 {
  return max(
    max(f32x4.extract_lane(v, 0), f32x4.extract_lane(v, 1)),
    max(f32x4.extract_lane(v, 2), f32x4.extract_lane(v, 3)),
  );
}

/** The first `count` (1 to 3) elements at `p`; the other lanes hold `filler`. */
export function loadPart(p: usize, count: u32, filler: f32): v128 {
  let v = f32x4.splat(filler);
  v = f32x4.replace_lane(v, 0, load<f32>(p));
  if (count > 1) v = f32x4.replace_lane(v, 1, load<f32>(p, 4));
  if (count > 2) v = f32x4.replace_lane(v, 2, load<f32>(p, 8));
  return v;
}

/** Stores the first `count` (1 to 3) lanes. */
export function storePart(p: usize, v: v128, count: u32): void {
  v128.store32_lane(p, v, 0);
  if (count > 1) v128.store32_lane(p, v, 1, 4);
  if (count > 2) v128.store32_lane(p, v, 2, 8);
}

/** Four elements, or the `left` that remain. */
// @ts-ignore: decorator
@inline
export function loadUpTo(p: usize, left: u32, filler: f32 = 0.0): v128 {
  return left >= 4 ? v128.load(p) : loadPart(p, left, filler);
}

// @ts-ignore: decorator
@inline
export function storeUpTo(p: usize, v: v128, left: u32): void {
  if (left >= 4) v128.store(p, v);
  else storePart(p, v, left);
}
