// Minimises a smooth function with few evaluations: limited-memory BFGS with a backtracking search.

/** Value and gradient of a function at a point. */
export interface Evaluation {
  readonly value: number;
  readonly gradient: Float64Array;
}

/** Steps remembered; more than ten rarely help. */
const MEMORY = 10;
/** A step must gain at least this share of what the slope promises (Armijo). */
const SUFFICIENT = 1e-4;
const MOST_HALVINGS = 30;

/**
 * Finds a minimum.
 *
 * @param evaluate must be smooth; may be as exact as float32 sums are, since a step that gains nothing ends the search
 * @returns the best point seen
 */
export async function minimize(
  start: Float64Array,
  evaluate: (x: Float64Array) => Promise<Evaluation>,
  { iterations = 200, tolerance = 1e-5, onIteration = () => {} }: {
    iterations?: number;
    /** Stops when no element of the gradient is larger. */
    tolerance?: number;
    onIteration?: (iteration: number, value: number) => void;
  } = {},
): Promise<{ x: Float64Array; value: number; iterations: number }> {
  let x = start.slice();
  let { value, gradient } = await evaluate(x);
  const steps: { s: Float64Array; y: Float64Array; rho: number }[] = [];
  let iteration = 0;
  for (; iteration < iterations; iteration++) {
    if (gradient.every((g) => Math.abs(g) <= tolerance)) break;
    const direction = descentDirection(gradient, steps);
    const slope = dot(direction, gradient);
    let size = steps.length === 0 ? Math.min(1, 1 / Math.sqrt(dot(gradient, gradient))) : 1;
    let next: Evaluation | undefined, moved = x;
    for (let tries = 0; tries < MOST_HALVINGS; tries++, size /= 2) {
      moved = x.map((v, i) => v + size * direction[i]);
      const here = await evaluate(moved);
      if (here.value <= value + SUFFICIENT * size * slope) {
        next = here;
        break;
      }
    }
    if (!next) break; // no progress within the accuracy of the sums
    const s = moved.map((v, i) => v - x[i]), y = next.gradient.map((g, i) => g - gradient[i]);
    const curvature = dot(s, y);
    // Only what curves upwards makes a positive definite model.
    if (curvature > 1e-12 * Math.sqrt(dot(s, s) * dot(y, y))) {
      steps.push({ s, y, rho: 1 / curvature });
      if (steps.length > MEMORY) steps.shift();
    }
    x = moved;
    ({ value, gradient } = next);
    onIteration(iteration + 1, value);
  }
  return { x, value, iterations: iteration };
}

/** −H·gradient, H being what the last steps say of the inverse Hessian. */
function descentDirection(
  gradient: Float64Array,
  steps: readonly { s: Float64Array; y: Float64Array; rho: number }[],
): Float64Array {
  const q = gradient.map((g) => -g);
  const alphas: number[] = [];
  for (const { s, y, rho } of [...steps].reverse()) {
    const alpha = rho * dot(s, q);
    alphas.unshift(alpha);
    for (let i = 0; i < q.length; i++) q[i] -= alpha * y[i];
  }
  const last = steps.at(-1);
  if (last) {
    const scale = 1 / (last.rho * dot(last.y, last.y));
    for (let i = 0; i < q.length; i++) q[i] *= scale;
  }
  steps.forEach(({ s, y, rho }, k) => {
    const beta = rho * dot(y, q);
    for (let i = 0; i < q.length; i++) q[i] += (alphas[k] - beta) * s[i];
  });
  return dot(q, gradient) < 0 ? q : gradient.map((g) => -g);
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}
