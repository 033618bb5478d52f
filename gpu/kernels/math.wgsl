// exp, log, erf and GELU to about an ulp: WGSL's own exp may be off by 3 + 2|x| ulp, and it has no erf.
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

// Error function: a polynomial in x² below 1, 1 − exp(polynomial) above; both interpolate at Chebyshev nodes.
fn errorFunction(x: V) -> V {
  let a = abs(x);
  let q = a * a;
  var low = fma(q, V(7.8758749e-5), V(-8.0168643e-4));
  low = fma(low, q, V(5.18908724e-3));
  low = fma(low, q, V(-2.68542115e-2));
  low = fma(low, q, V(1.12835944e-1));
  low = fma(low, q, V(-3.7612626e-1));
  low = fma(low, q, V(1.12837911));
  let t = min(a, V(4.0)); // 1 − erf(4) is 1.5e-8, under half an ulp of 1
  var high = fma(t, V(-7.5826819e-8), V(3.32168452e-6));
  high = fma(high, t, V(-6.2298357e-5));
  high = fma(high, t, V(6.8583671e-4));
  high = fma(high, t, V(-5.06494707e-3));
  high = fma(high, t, V(2.70995237e-2));
  high = fma(high, t, V(-1.11055017e-1));
  high = fma(high, t, V(-6.30953014e-1));
  high = fma(high, t, V(-1.13067520));
  high = fma(high, t, V(4.16329218e-4));
  let tail = 1.0 - exponential(high);
  return select(low * x, select(tail, -tail, x < V(0.0)), a >= V(1.0));
}

fn gelu(x: V) -> V {
  return 0.5 * x * (1.0 + errorFunction(x * 0.70710678118654752));
}

// Φ(x) + x·φ(x)
fn geluDerivative(x: V) -> V {
  let density = 0.39894228040143268 * exponential(-0.5 * x * x);
  return fma(x, density, 0.5 * (1.0 + errorFunction(x * 0.70710678118654752)));
}

fn isFinite1(x: f32) -> bool {
  // By bits: a compiler may assume that comparisons never see NaN.
  return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u;
}
