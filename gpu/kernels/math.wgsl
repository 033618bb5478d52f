// exp and log to about an ulp, since WGSL's own exp may be off by 3 + 2|x| ulp; GELU and its derivative, with their error bounds.
// NaN and infinity pass through, because the guard against a diverged loss looks for them.

const LOG2_E = 1.4426950408889634f;
// ln 2 in two parts; the first has so few bits that its product with a small whole number is exact.
const LN2_HIGH = 0.693359375f;
const LN2_LOW = -2.12194440e-4f;

fn exponential(x: V) -> V {
  let n = clamp(round(x * LOG2_E), V(-150.0), V(200.0));
  let r = fma(n, V(-LN2_LOW), fma(n, V(-LN2_HIGH), x));
  // Taylor to degree 7: |r| ≤ 0.35, so the rest is below 1e-8 of the value.
  var e = fma(r, V(1.0 / 5040.0), V(1.0 / 720.0));
  e = fma(e, r, V(1.0 / 120.0));
  e = fma(e, r, V(1.0 / 24.0));
  e = fma(e, r, V(1.0 / 6.0));
  e = fma(e, r, V(0.5));
  e = fma(e, r, V(1.0));
  e = fma(e, r, V(1.0));
  // 2ⁿ as two factors, each a normal number, so that n up to 200 gives infinity and not a wrapped exponent.
  let whole = VI(n);
  let half = whole >> VU(1u);
  let scaled = e * bitcast<V>((half + VI(127)) << VU(23u)) * bitcast<V>((whole - half + VI(127)) << VU(23u));
  return select(scaled, V(0.0), x < V(-103.0));
}

fn exponential1(x: f32) -> f32 {
  return first(exponential(V(x)));
}

// Natural logarithm of a positive normal number.
fn logarithm1(x: f32) -> f32 {
  let bits = bitcast<u32>(x);
  if (bits >= 0x7f800000u || bits < 0x00800000u) {
    return log(x); // NaN, infinity, zero, negative
  }
  // x = m·2ᵉ with m in [√½, √2)
  let e = i32(bits - 0x3f3504f3u) >> 23u;
  let m = bitcast<f32>(bits - (u32(e) << 23u));
  let s = (m - 1.0) / (m + 1.0);
  let q = s * s;
  // ln m = 2·(s + s³/3 + s⁵/5 + …), |s| ≤ 0.172
  let series = q * fma(q, fma(q, fma(q, 2.0 / 9.0, 2.0 / 7.0), 2.0 / 5.0), 2.0 / 3.0);
  return fma(f32(e), LN2_HIGH, fma(f32(e), LN2_LOW, fma(s, series, 2.0 * s)));
}

// P(u)/Q(u) of degree five each; coefficients from the lowest power, Q(0) = 1.
fn geluFraction(u: V) -> V {
  var p = fma(u, V(2.2748386e-8), V(6.3518582e-6));
  p = fma(p, u, V(1.6881965e-4));
  p = fma(p, u, V(4.6772249e-3));
  p = fma(p, u, V(3.3852294e-2));
  p = fma(p, u, V(3.9894229e-1));
  var q = fma(u, V(1.1974555e-6), V(7.3644362e-5));
  q = fma(q, u, V(1.8844132e-3));
  q = fma(q, u, V(2.8645627e-2));
  q = fma(q, u, V(2.5152102e-1));
  q = fma(q, u, V(1.0));
  return p / q;
}

fn geluSlope(u: V) -> V {
  var p = fma(u, V(1.9291562e-7), V(3.5955010e-5));
  p = fma(p, u, V(1.9245279e-5));
  p = fma(p, u, V(1.4230191e-2));
  p = fma(p, u, V(-3.0994639e-2));
  p = fma(p, u, V(7.9788536e-1));
  var q = fma(u, V(8.9519672e-6), V(1.9204196e-4));
  q = fma(q, u, V(3.5230634e-3));
  q = fma(q, u, V(4.0980589e-2));
  q = fma(q, u, V(2.9449555e-1));
  q = fma(q, u, V(1.0));
  return p / q;
}

// x·Φ(x) as x/2 + |x|·(Φ(|x|) − ½), Φ(t) − ½ being t times a fraction in t² that reaches ½ at 5.5. Absolute error below
// 3e-7·max(1, |x|), in a third of the instructions of an error function: a product whose operand is a GELU computes it for
// every tile.
fn gelu(x: V) -> V {
  let size = abs(x);
  let t = min(size, V(5.5));
  return fma(size, min(t * geluFraction(t * t), V(0.5)), 0.5 * x);
}

// Φ(x) + x·φ(x) as ½ + x times a fraction in x². Absolute error below 4e-7.
fn geluDerivative(x: V) -> V {
  let t = clamp(x, V(-5.8), V(5.8)); // may lose a NaN, which the forward pass has shown
  return fma(t, geluSlope(t * t), V(0.5));
}

fn isFinite1(x: f32) -> bool {
  // By bits: a compiler may assume that comparisons never see NaN.
  return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u;
}
