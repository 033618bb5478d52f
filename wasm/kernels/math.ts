// exp, log, GELU and its derivative on four lanes, with their error bounds; loads and stores of ragged ends.

// Constants of the vector functions are read from a table in memory: V8 builds a vector constant from two 64-bit
// immediates at every use, inside loops too, which costs more than the arithmetic; a broadcasting load costs nothing.
// The table lies where `fillConstants` was told to put it; vector functions take its address as `k`.
const MAGIC: usize = 0;
const LOG2_E: usize = 4;
const LN2_HIGH: usize = 8;
const LN2_LOW: usize = 12;
const LOWEST: usize = 16;
const EXP: usize = 20; // coefficients of q, highest power first
const ONE: usize = 40;
const HALF: usize = 44;
const GELU: usize = 48; // how far the fraction goes, its numerator and denominator, lowest power first
const SLOPE: usize = 96; // the same for the derivative
const POWER: usize = 144; // least argument of a power of two, coefficients of its polynomial, highest power first

/** Writes the table of constants. */
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
  store<f32>(k, 0.5, HALF);
  store<f32>(k, 5.5, GELU);
  store<f32>(k, 0.3989422917366028, GELU + 4);
  store<f32>(k, 0.03385229408740997, GELU + 8);
  store<f32>(k, 0.004677224904298782, GELU + 12);
  store<f32>(k, 0.00016881964984349906, GELU + 16);
  store<f32>(k, 6.351858246489428e-6, GELU + 20);
  store<f32>(k, 2.2748386285798006e-8, GELU + 24);
  store<f32>(k, 0.2515210211277008, GELU + 28);
  store<f32>(k, 0.028645627200603485, GELU + 32);
  store<f32>(k, 0.0018844131845980883, GELU + 36);
  store<f32>(k, 7.364436169154942e-5, GELU + 40);
  store<f32>(k, 1.1974555036431411e-6, GELU + 44);
  store<f32>(k, 5.8, SLOPE);
  store<f32>(k, 0.7978853583335876, SLOPE + 4);
  store<f32>(k, -0.030994638800621033, SLOPE + 8);
  store<f32>(k, 0.01423019077628851, SLOPE + 12);
  store<f32>(k, 1.9245278963353485e-5, SLOPE + 16);
  store<f32>(k, 3.595501038944349e-5, SLOPE + 20);
  store<f32>(k, 1.929156212554517e-7, SLOPE + 24);
  store<f32>(k, 0.294495552778244, SLOPE + 28);
  store<f32>(k, 0.040980588644742966, SLOPE + 32);
  store<f32>(k, 0.0035230633802711964, SLOPE + 36);
  store<f32>(k, 0.0001920419599628076, SLOPE + 40);
  store<f32>(k, 8.951967174652964e-6, SLOPE + 44);
  store<f32>(k, -126, POWER);
  store<f32>(k, 0.001326472731307149, POWER + 4);
  store<f32>(k, 0.009671512991189957, POWER + 8);
  store<f32>(k, 0.05550733581185341, POWER + 12);
  store<f32>(k, 0.24022242426872253, POWER + 16);
  store<f32>(k, 0.6931470036506653, POWER + 20);
}

/** Where the table of constants holds 1. */
// @ts-ignore: decorator
@inline
export function addressOfOne(k: usize): usize {
  return k + ONE;
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
 * 2ˣ for x ≤ 127. Relative error below 2.5e-7; arguments below -126 give 2⁻¹²⁶ = 1.2e-38; NaN stays NaN. Nothing is lost in
 * taking the whole part away, which makes it cheaper than eˣ where a factor is multiplied in anyway.
 */
// @ts-ignore: decorator
@inline
export function power4(x: v128, k: usize): v128 {
  const magic = constant(k, MAGIC);
  x = f32x4.pmax(x, constant(k, POWER));
  const t = f32x4.add(x, magic), r = f32x4.sub(x, f32x4.sub(t, magic));
  // 1 + r·q(r), fitted on |r| ≤ ½ with error 9e-8.
  const r2 = f32x4.mul(r, r);
  const low = f32x4.relaxed_madd(constant(k, POWER + 20), r, constant(k, ONE));
  const middle = f32x4.relaxed_madd(constant(k, POWER + 12), r, constant(k, POWER + 16));
  const high = f32x4.relaxed_madd(constant(k, POWER + 4), r, constant(k, POWER + 8));
  const p = f32x4.relaxed_madd(f32x4.relaxed_madd(high, r2, middle), r2, low);
  return i32x4.add(p, i32x4.shl(t, 23));
}

/** P(u)/Q(u) of degree five each, with Q(0) = 1: the numerator at `at` + 4, the rest of the denominator behind it. */
// @ts-ignore: decorator
@inline
function fraction4(u: v128, k: usize, at: usize): v128 {
  let p = f32x4.relaxed_madd(constant(k, at + 24), u, constant(k, at + 20));
  let q = f32x4.relaxed_madd(constant(k, at + 44), u, constant(k, at + 40));
  p = f32x4.relaxed_madd(p, u, constant(k, at + 16));
  q = f32x4.relaxed_madd(q, u, constant(k, at + 36));
  p = f32x4.relaxed_madd(p, u, constant(k, at + 12));
  q = f32x4.relaxed_madd(q, u, constant(k, at + 32));
  p = f32x4.relaxed_madd(p, u, constant(k, at + 8));
  q = f32x4.relaxed_madd(q, u, constant(k, at + 28));
  p = f32x4.relaxed_madd(p, u, constant(k, at + 4));
  q = f32x4.relaxed_madd(q, u, constant(k, ONE));
  return f32x4.div(p, q);
}

/**
 * x·Φ(x): GELU in its exact form, as x/2 + |x|·(Φ(|x|) − ½); absolute error below 3e-7·max(1, |x|), and below −5.5, where
 * Φ(x) < 2e-8, exactly 0. Φ(t) − ½ is t times a fraction in t² that reaches ½ at 5.5, with an error of 8e-8.
 */
// @ts-ignore: decorator
@inline
export function gelu4(x: v128, k: usize): v128 {
  const half = constant(k, HALF), size = f32x4.abs(x), t = f32x4.pmin(size, constant(k, GELU));
  const upper = f32x4.pmin(f32x4.mul(t, fraction4(f32x4.mul(t, t), k, GELU)), half);
  return f32x4.relaxed_madd(size, upper, f32x4.mul(x, half));
}

/** Φ(x) + x·φ(x), the derivative of GELU, as ½ + x times a fraction in x²; absolute error below 4e-7. */
// @ts-ignore: decorator
@inline
export function geluDerivative4(x: v128, k: usize): v128 {
  const far = constant(k, SLOPE), t = f32x4.pmax(f32x4.pmin(x, far), f32x4.neg(far));
  return f32x4.relaxed_madd(t, fraction4(f32x4.mul(t, t), k, SLOPE), constant(k, HALF));
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
