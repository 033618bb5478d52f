// erf and GELU in float64, for the references.

const TWO_OVER_SQRT_PI = 2 / Math.sqrt(Math.PI);

/** Error function to a few ulp: e^(−x²)·Σ 2ⁿ x^(2n+1)/(2n+1)!!, whose terms all have one sign. */
export function erf(x: number): number {
  if (Number.isNaN(x)) return NaN;
  if (Math.abs(x) > 6) return Math.sign(x); // 1 − erf(6) is 2e-17
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return TWO_OVER_SQRT_PI * Math.exp(-x * x) * sum;
}

/** x·Φ(x), the exact (erf) form DINO's ViTs use, not the tanh approximation. */
export function gelu(x: number): number {
  return 0.5 * x * (1 + erf(x / Math.SQRT2));
}

/** Derivative of {@link gelu}: Φ(x) + x·φ(x). */
export function geluDerivative(x: number): number {
  return 0.5 * (1 + erf(x / Math.SQRT2)) + x * Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI);
}
