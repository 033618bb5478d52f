// Gradients against central differences of the float64 reference, through programs that use every differentiable operation.
import { differentiate } from "../../../models/graph/autodiff.ts";
import { layoutSegments } from "../../../models/graph/arena.ts";
import { batchNorm } from "../../../models/graph/ops/batch_norm.ts";
import { add, emitCopy, emitSum, gelu } from "../../../models/graph/ops/elementwise.ts";
import { attention } from "../../../models/graph/ops/attention.ts";
import { dinoLoss } from "../../../models/graph/ops/dino_loss.ts";
import { conv2d } from "../../../models/graph/ops/convolution.ts";
import { averagePool, maxPool } from "../../../models/graph/ops/pooling.ts";
import { relu } from "../../../models/graph/ops/relu.ts";
import { crossCovariance } from "../../../models/graph/ops/cross_covariance.ts";
import { depthwiseConv } from "../../../models/graph/ops/depthwise.ts";
import { layerScale } from "../../../models/graph/ops/layer_scale.ts";
import { linear, matmul } from "../../../models/graph/ops/matmul.ts";
import { l2Normalize, layerNorm, weightNorm } from "../../../models/graph/ops/norm.ts";
import { assembleTokens, gatherRows, patchify, resample } from "../../../models/graph/ops/tokens.ts";
import { Program } from "../../../models/graph/program.ts";
import { ReferenceBackend } from "../../../models/graph/reference.ts";
import { size, type Tensor, tensor } from "../../../models/graph/tensor.ts";
import { bicubicAxis } from "../../../models/interpolate.ts";
import { headConfig } from "../../../models/dino_head.ts";
import { multiCrop, networkBufferShapes, networkShapes } from "../../../models/dino_network.ts";
import { vitConfig } from "../../../models/vit.ts";
import { assert } from "../../assert.ts";
import { noise } from "./op_cases.ts";

/** Step of the difference quotient: its error h² and the cancellation ε/h are both about 1e-10 of the value here. */
const STEP = 1e-5;
/** Relative error allowed of a derivative: a few hundred times that, for curvature. */
const TOLERANCE = 3e-7;

/**
 * Checks d(Σ out·cotangent)/d(input) at a few elements of each input.
 *
 * @param forward emits a program over `inputs` and returns its result
 */
async function checkGradient(
  inputs: Record<string, number[]>,
  forward: (p: Program, t: Record<string, Tensor>) => Tensor,
  { positive = [], magnitude = 1 }: { positive?: string[]; magnitude?: number } = {},
): Promise<void> {
  const random = noise(99);
  const t = Object.fromEntries(Object.entries(inputs).map(([name, shape]) => [name, tensor(name, shape, "param")]));
  const backend = new ReferenceBackend();
  const p = new Program("gradient check");
  const y = forward(p, t);
  const cotangent = tensor("cotangent", y.shape, "input");
  const gradients = new Map(Object.values(t).map((x) => [x, tensor(`d(${x.name})`, x.shape, "output")]));
  const forwardOps = p.ops.length;
  differentiate(p, { seeds: [[y, cotangent]], wrt: [...gradients] });
  const value = new Program("forward");
  value.ops.push(...p.ops.slice(0, forwardOps));
  for (const x of [...Object.values(t), cotangent]) {
    const at = backend.at(x);
    for (let i = 0; i < at.length; i++) {
      at[i] = magnitude * random() + (positive.includes(x.name) ? magnitude + 0.5 : 0);
    }
  }
  const evaluate = async () => {
    await (await backend.compile(value)).run();
    return backend.at(y).reduce((sum, v, i) => sum + v * backend.at(cotangent)[i], 0);
  };
  await (await backend.compile(p)).run();
  for (const [x, dx] of gradients) {
    const analytic = backend.at(dx).slice(), at = backend.at(x);
    const scale = analytic.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-3);
    const count = Math.min(size(x), 12);
    for (let j = 0; j < count; j++) {
      const i = Math.floor(j * size(x) / count);
      const kept = at[i];
      at[i] = kept + STEP;
      const above = await evaluate();
      at[i] = kept - STEP;
      const below = await evaluate();
      at[i] = kept;
      const numeric = (above - below) / (2 * STEP);
      assert(
        Math.abs(numeric - analytic[i]) <= TOLERANCE * scale + 1e-8,
        `d/d${x.name}[${i}]: difference quotient ${numeric}, gradient ${analytic[i]}`,
      );
    }
  }
}

Deno.test("gradient of linear with GELU, drop path and residual", () =>
  checkGradient(
    { x: [6, 5], w: [7, 5], b: [7], r: [6, 7], s: [2] },
    (p, { x, w, b, r }) => {
      const scale = tensor("drop", [2], "constant", "f32", Float32Array.of(0.5, 2));
      return linear(p, x, w, b, { gelu: true, residual: r, rowScale: scale });
    },
  ));

Deno.test("gradient through the sole use of a GELU output is fused into one product", async () => {
  const shapes = { x: [4, 3], w1: [5, 3], b1: [5], w2: [2, 5], b2: [2] };
  await checkGradient(shapes, (p, { x, w1, b1, w2, b2 }) => linear(p, linear(p, x, w1, b1, { gelu: true }), w2, b2));
  await checkGradient(shapes, (p, { x, w1, b1, w2, b2 }) => { // two uses: not fused, same gradient
    const h = linear(p, x, w1, b1, { gelu: true });
    return add(p, linear(p, h, w2, b2), linear(p, h, w2));
  });
});

Deno.test("gradient of matrix products in every transposition", async () => {
  for (const [transA, transB] of [[false, false], [false, true], [true, false], [true, true]]) {
    await checkGradient(
      { a: transA ? [4, 3] : [3, 4], b: transB ? [5, 4] : [4, 5] },
      (p, { a, b }) => matmul(p, a, b, { transA, transB }),
    );
  }
});

Deno.test("gradient of layer norm, used twice", () =>
  checkGradient(
    { x: [4, 9], w: [9], b: [9] },
    (p, { x, w, b }) => add(p, layerNorm(p, x, w, b, 1e-6), layerNorm(p, gelu(p, x), w, b, 1e-3)),
  ));

Deno.test("gradient of the L2 norm and of the weight norm", () =>
  checkGradient(
    { x: [4, 6], v: [5, 6], g: [5, 1] },
    (p, { x, v, g }) => linear(p, l2Normalize(p, x), weightNorm(p, v, g)),
  ));

Deno.test("gradient of batch norm, training and evaluation", async () => {
  for (const training of [true, false]) {
    await checkGradient({ x: [7, 3], weight: [3], bias: [3] }, (p, { x, weight, bias }) => {
      const runningMean = tensor("runningMean", [3], "state"), runningVar = tensor("runningVar", [3], "state");
      return batchNorm(p, x, { weight, bias, runningMean, runningVar }, { training, eps: 0.1 });
    });
  }
});

Deno.test("gradient of a residual block of convolutions, with pooling before and after", () =>
  checkGradient(
    { x: [2 * 7 * 6, 3], stem: [4, 3, 3, 3], b: [4], w1: [4, 4, 3, 3], w2: [5, 4, 1, 1], shortcut: [5, 4, 1, 1] },
    (p, { x, stem, b, w1, w2, shortcut }) => {
      const started = conv2d(p, x, { images: 2, height: 7, width: 6 }, stem, { padding: 1, bias: b });
      const pooled = maxPool(p, started.y, started.grid, { kernel: 3, stride: 2, padding: 1 });
      const inner = conv2d(p, pooled.y, pooled.grid, w1, { stride: 2, padding: 1 });
      const branch = conv2d(p, inner.y, inner.grid, w2).y;
      const straight = conv2d(p, pooled.y, pooled.grid, shortcut, { stride: 2 }).y;
      const joined = relu(p, branch, straight);
      return averagePool(p, relu(p, add(p, joined, branch), joined), 2);
    },
  ));

Deno.test("gradient of attention, of all tokens and of the first alone", async () => {
  for (const queries of [5, 1]) {
    await checkGradient(
      { qkv: [10, 24] },
      (p, { qkv }) => attention(p, qkv, { images: 2, tokens: 5, heads: 2, queries }),
    );
  }
});

Deno.test("gradient from pixels to tokens through resampled positions", () =>
  checkGradient({ image: [2, 3, 9, 6], w: [4, 12], cls: [4], pos: [10, 4] }, (p, { image, w, cls, pos }) => {
    const patches = linear(p, patchify(p, image, 2), w); // 4×3 patches, a ragged row dropped
    const grid = resample(p, pos, bicubicAxis(3, 4, 4.1 / 3), bicubicAxis(3, 3, 3.1 / 3), 1);
    const tokens = assembleTokens(p, patches, cls, grid, 2);
    return add(
      p,
      gatherRows(p, tokens, { stride: 13, count: 2 }),
      gatherRows(p, tokens, { start: 1, stride: 2, count: 2 }),
    );
  }));

Deno.test("gradient of leading tokens of each image's own, and of positions alone", () =>
  checkGradient({ patches: [6, 4], lead: [4, 4], pos: [5, 4], place: [3, 4] }, (p, { patches, lead, pos, place }) => {
    const placed = assembleTokens(p, patches, undefined, place, 2); // three patches an image
    return assembleTokens(p, placed, lead, pos, 2);
  }));

Deno.test("gradient of depthwise convolutions, layer scale and cross-covariance attention", async () => {
  const grid = { images: 2, height: 3, width: 4 };
  await checkGradient(
    { x: [24, 5], first: [5, 1, 3, 3], bias: [5], second: [5, 1, 3, 3] },
    (p, { x, first, bias, second }) =>
      add(p, x, depthwiseConv(p, depthwiseConv(p, x, grid, first, bias), grid, second)),
  );
  await checkGradient(
    { x: [6, 5], gamma: [5] },
    (p, { x, gamma }) => {
      const rowScale = tensor("rowScale", [3], "constant", "f32", Float32Array.of(1, 0, 2.5));
      return layerScale(p, gelu(p, x), gamma, { residual: x, rowScale });
    },
  );
  await checkGradient(
    { qkv: [10, 24], temperature: [2, 1, 1] },
    (p, { qkv, temperature }) => crossCovariance(p, qkv, temperature, { images: 2, tokens: 5, heads: 2 }),
  );
});

Deno.test("gradient of the DINO loss is that of its sum", async () => {
  const [views, globals, images, K] = [5, 2, 3, 8]; // 1/8 is exact: the loss assumes probabilities that sum to 1
  const probs = tensor(
    "probs",
    [globals * images, K],
    "constant",
    "f32",
    new Float32Array(globals * images * K).fill(1 / K),
  );
  const backend = new ReferenceBackend();
  const student = tensor("student", [views * images, K], "param"), total = tensor("total", [1], "output");
  const p = new Program("loss");
  const { dlogits, losses } = dinoLoss(p, student, probs, {
    views,
    globals,
    images,
    temperature: 0.1,
    gradientScale: 1,
  });
  emitSum(p, losses, total, 1);
  const read = tensor("read", dlogits.shape, "output"); // an unread gradient would be dropped
  emitCopy(p, dlogits, read);
  const random = noise(5), at = backend.at(student);
  for (let i = 0; i < at.length; i++) at[i] = random();
  const executable = await backend.compile(p);
  const evaluate = async () => (await executable.run(), backend.at(total)[0]);
  await evaluate();
  const gradient = backend.at(read).slice();
  for (let i = 0; i < at.length; i += 4) {
    const kept = at[i];
    at[i] = kept + STEP;
    const above = await evaluate();
    at[i] = kept - STEP;
    const below = await evaluate();
    at[i] = kept;
    assert(Math.abs((above - below) / (2 * STEP) - gradient[i]) < 1e-6, `element ${i}`);
  }
});

Deno.test("gradient of a whole network with registers and batch norm, over two crop sizes", () => {
  const network = {
    backbone: vitConfig({ imageSize: 8, patchSize: 4, embedDim: 8, depth: 2, numHeads: 2, mlpRatio: 2, registers: 2 }),
    head: headConfig({
      inDim: 8,
      outDim: 6,
      layers: 2,
      hiddenDim: 5,
      bottleneckDim: 4,
      batchNorm: true,
      normLastLayer: false,
    }),
  };
  const buffers = new Map(networkBufferShapes(network).map(([name, shape]) => [name, tensor(name, shape, "state")]));
  const names = layoutSegments(networkShapes(network)).map((s) => [s.name, [...s.shape]] as const);
  return checkGradient({ ...Object.fromEntries(names), big: [2, 3, 8, 8], small: [4, 3, 4, 4] }, (p, t) => {
    const group = (image: Tensor) => ({
      patches: patchify(p, image, 4),
      images: image.shape[0],
      height: image.shape[2],
      width: image.shape[3],
    });
    return multiCrop(p, (name) => buffers.get(name) ?? t[name], network, [group(t.big), group(t.small)]).logits;
  }, { magnitude: 0.5 });
});

Deno.test("accumulated gradients of two halves equal those of the whole", async () => {
  const backend = new ReferenceBackend();
  const w = tensor("w", [3, 4], "param"), x = tensor("x", [6, 4], "input"), d = tensor("d", [6, 3], "input");
  const parts = [0, 1].map((i) => ({ x: tensor(`x${i}`, [3, 4], "input"), d: tensor(`d${i}`, [3, 3], "input") }));
  const random = noise(3);
  for (const t of [w, x, d]) backend.write(t, Float64Array.from({ length: size(t) }, random));
  parts.forEach((part, i) => {
    backend.write(part.x, backend.at(x).slice(i * 12, (i + 1) * 12));
    backend.write(part.d, backend.at(d).slice(i * 9, (i + 1) * 9));
  });
  const gradientOf = async (input: Tensor, seed: Tensor, into: Tensor, accumulate: boolean) => {
    const p = new Program("part");
    differentiate(p, { seeds: [[linear(p, input, w), seed]], wrt: [[w, into]], accumulate });
    await (await backend.compile(p)).run();
  };
  const whole = tensor("whole", [3, 4], "output"), sum = tensor("sum", [3, 4], "output");
  await gradientOf(x, d, whole, false);
  await gradientOf(parts[0].x, parts[0].d, sum, false);
  await gradientOf(parts[1].x, parts[1].d, sum, true);
  backend.at(whole).forEach((v, i) => assert(Math.abs(v - backend.at(sum)[i]) < 1e-14, `element ${i}`));
});
