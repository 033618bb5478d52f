// exp, log and the normal distribution on four lanes, with their error bounds; loads and stores of ragged ends.

/**
 * eˣ. Relative error below 1.5 ulp (2e-7 measured against float64 over the whole range); arguments are clamped to
 * [-87.3, 88.3], so it never overflows; NaN stays NaN.
 */
// @ts-ignore: decorator
@inline
export function exp4(x: v128): v128 {
  // n = round(x / ln 2) by adding 1.5·2²³, whose low bits then hold n; r = x − n·ln 2 in two parts.
  const magic = f32x4.splat(12582912.0);
  x = f32x4.min(f32x4.max(x, f32x4.splat(-87.3)), f32x4.splat(88.3));
  const t = f32x4.relaxed_madd(x, f32x4.splat(1.4426950408889634), magic);
  const n = f32x4.sub(t, magic);
  let r = f32x4.relaxed_nmadd(n, f32x4.splat(0.693359375), x);
  r = f32x4.relaxed_nmadd(n, f32x4.splat(-2.1219444e-4), r);
  // 1 + r + r²·q(r), q fitted on |r| ≤ ln 2 / 2 with error 3e-9.
  let q = f32x4.splat(0.001395080122165382);
  q = f32x4.relaxed_madd(q, r, f32x4.splat(0.008369073271751404));
  q = f32x4.relaxed_madd(q, r, f32x4.splat(0.04166620224714279));
  q = f32x4.relaxed_madd(q, r, f32x4.splat(0.16666516661643982));
  q = f32x4.relaxed_madd(q, r, f32x4.splat(0.5));
  const p = f32x4.add(f32x4.relaxed_madd(q, f32x4.mul(r, r), r), f32x4.splat(1.0));
  return i32x4.add(p, i32x4.shl(t, 23));
}

/**
 * Φ(−t)·e^(t²/2) for t ≥ 0 (half the scaled complementary error function), relative error 3e-7; constant past t = 7,
 * where Φ(−t) < 2e-12. A polynomial in 1 / (1 + 0.33 t).
 */
// @ts-ignore: decorator
@inline
function tail4(t: v128): v128 {
  const one = f32x4.splat(1.0);
  const u = f32x4.div(one, f32x4.relaxed_madd(f32x4.min(t, f32x4.splat(7.0)), f32x4.splat(0.33), one));
  let p = f32x4.splat(0.04947048798203468);
  p = f32x4.relaxed_madd(p, u, f32x4.splat(-0.23992770910263062));
  p = f32x4.relaxed_madd(p, u, f32x4.splat(0.3713133633136749));
  p = f32x4.relaxed_madd(p, u, f32x4.splat(-0.13445255160331726));
  p = f32x4.relaxed_madd(p, u, f32x4.splat(0.2108297497034073));
  p = f32x4.relaxed_madd(p, u, f32x4.splat(0.10797557234764099));
  p = f32x4.relaxed_madd(p, u, f32x4.splat(0.13499335944652557));
  return f32x4.relaxed_madd(p, u, f32x4.splat(-0.00020231651433277875));
}

/** Φ(x) from e^(−x²/2). */
// @ts-ignore: decorator
@inline
function normal4(x: v128, density: v128): v128 {
  const lower = f32x4.mul(density, tail4(f32x4.abs(x))); // Φ(−|x|)
  return v128.bitselect(lower, f32x4.sub(f32x4.splat(1.0), lower), f32x4.lt(x, f32x4.splat(0.0)));
}

/** x·Φ(x): GELU in its exact form; relative error below 5e-7 down to where it underflows. */
// @ts-ignore: decorator
@inline
export function gelu4(x: v128): v128 {
  const density = exp4(f32x4.mul(f32x4.mul(x, x), f32x4.splat(-0.5)));
  return f32x4.mul(x, normal4(x, density));
}

/** Φ(x) + x·φ(x): the derivative of GELU; absolute error below 3e-7. */
// @ts-ignore: decorator
@inline
export function geluDerivative4(x: v128): v128 {
  const density = exp4(f32x4.mul(f32x4.mul(x, x), f32x4.splat(-0.5)));
  return f32x4.relaxed_madd(f32x4.mul(x, density), f32x4.splat(0.3989422804014327), normal4(x, density));
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
