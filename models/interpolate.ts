// Interpolation weights along one axis, as PyTorch's `interpolate` defines them.
import type { AxisWeights } from "./graph/ops/tokens.ts";

/** Keys' cubic parameter: PyTorch uses −0.75 (Pillow −0.5). */
const CUBIC_A = -0.75;

/** Weight of a sample at distance |t| < 2 under the cubic convolution kernel. */
function cubic(t: number): number {
  const x = Math.abs(t);
  if (x <= 1) return ((CUBIC_A + 2) * x - (CUBIC_A + 3)) * x * x + 1;
  if (x < 2) return ((CUBIC_A * x - 5 * CUBIC_A) * x + 8 * CUBIC_A) * x - 4 * CUBIC_A;
  return 0;
}

function axis(inputs: number, outputs: number, taps: (o: number) => [index: number, weight: number][]): AxisWeights {
  const weights = new Float64Array(outputs * inputs);
  for (let o = 0; o < outputs; o++) {
    for (const [index, weight] of taps(o)) {
      weights[o * inputs + Math.min(Math.max(index, 0), inputs - 1)] += weight; // indices clamp to the border
    }
  }
  return { out: outputs, in: inputs, weights };
}

/**
 * Bicubic weights [outputs, inputs]: the source coordinate of output o is (o + ½)/scale − ½ with the given scale
 * (not outputs/inputs); four taps, no antialiasing.
 */
export function bicubicAxis(inputs: number, outputs: number, scale: number): AxisWeights {
  return axis(inputs, outputs, (o) => {
    const source = (o + 0.5) / scale - 0.5;
    const first = Math.floor(source);
    return [-1, 0, 1, 2].map((i) => [first + i, cubic(source - first - i)]);
  });
}

/** Bilinear weights [outputs, inputs] with the same coordinates, clamped below at 0; two taps, no antialiasing. */
export function bilinearAxis(inputs: number, outputs: number, scale: number): AxisWeights {
  return axis(inputs, outputs, (o) => {
    const source = Math.max((o + 0.5) / scale - 0.5, 0);
    const first = Math.floor(source);
    return [[first, 1 - (source - first)], [first + 1, source - first]];
  });
}
