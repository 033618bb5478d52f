// Tensors beyond what a device binds at once: cut into parts, and the results are those of whole ones.
import { DinoState } from "../../dino/state.ts";
import { type CropSource, stepPrograms } from "../../dino/step.ts";
import type { GpuExecutable } from "../../gpu/executable.ts";
import type { WebGpuBackend } from "../../gpu/backend.ts";
import { headConfig } from "../../models/dino_head.ts";
import { GROUP } from "../../models/graph/ops/optimizer.ts";
import { patchify } from "../../models/graph/ops/tokens.ts";
import { differentiate } from "../../models/graph/autodiff.ts";
import { batchNorm } from "../../models/graph/ops/batch_norm.ts";
import { conv2d } from "../../models/graph/ops/convolution.ts";
import { crossCovariance } from "../../models/graph/ops/cross_covariance.ts";
import { depthwiseConv } from "../../models/graph/ops/depthwise.ts";
import { layerScale } from "../../models/graph/ops/layer_scale.ts";
import { linear, type MatmulOp } from "../../models/graph/ops/matmul.ts";
import { averagePool, maxPool } from "../../models/graph/ops/pooling.ts";
import { relu } from "../../models/graph/ops/relu.ts";
import { Program } from "../../models/graph/program.ts";
import { size, type Tensor, tensor } from "../../models/graph/tensor.ts";
import { vitConfig } from "../../models/vit.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";
import { assertAgrees, randomValues } from "./compare.ts";
import { onGpu, onHalfGpu } from "./open.ts";

/** Bytes bound at once in place of 128 MiB, what any WebGPU device binds. */
const LIMIT = 128 * 1024;

/** Compiles, and looks that no dispatch binds more than the limit. */
async function compiled(backend: WebGpuBackend, program: Program): Promise<GpuExecutable> {
  const executable = await backend.compile(program) as GpuExecutable;
  for (const { bindings, kernel } of executable.dispatches) {
    for (const b of bindings) {
      const bytes = b.kind === "tensor" || b.kind === "scratch" ? b.bytes : 0;
      assert(bytes <= backend.limits.bindingBytes, `${kernel.name} binds ${bytes}`);
    }
  }
  return executable;
}

/** An update whose logits, activations, images and arenas of parameters each take more than the limit. */
function update(): { program: Program; state: DinoState; inputs: Tensor[] } {
  const images = 64, backbone = vitConfig({ embedDim: 32, depth: 2, numHeads: 2, patchSize: 4, imageSize: 12 });
  const head = headConfig({ inDim: 32, outDim: 384, hiddenDim: 64, bottleneckDim: 32, normLastLayer: false });
  const state = new DinoState({ backbone, head });
  const inputs: Tensor[] = [];
  const source: CropSource = (p) => {
    const crops = (count: number, side: number) => {
      const pixels = tensor("crops", [count, 3, side, side], "input");
      inputs.push(pixels);
      return { patches: patchify(p, pixels, 4), images: count, height: side, width: side };
    };
    const large = crops(2 * images, 12), small = crops(images, 8);
    return { teacher: [large], student: [large, small] };
  };
  const config = { images, accumulate: 1, globals: 2, views: 3, studentTemp: 0.1, centerMomentum: 0.9 };
  return { program: stepPrograms(state, config, source).parts[0], state, inputs };
}

async function compareTiled(backend: WebGpuBackend): Promise<void> {
  const { bindingBytes } = backend.limits;
  const { program, state, inputs } = update();
  const watched = [state.student.flat, state.teacher.flat, state.center, state.ring, state.gradients.flat];
  const results: Record<number, Float32Array[]> = {};
  for (const limit of [bindingBytes, LIMIT]) {
    backend.limits = { ...backend.limits, bindingBytes: limit };
    for (const [i, t] of [state.student.flat, state.teacher.flat, ...inputs].entries()) {
      backend.write(t, randomValues(size(t), i + 1, i < 2 ? 0.2 : 1));
    }
    for (const t of [state.first.flat, state.second!.flat, state.center]) backend.write(t, new Float32Array(size(t)));
    backend.write(state.scalars.get("teacherTemp"), Float32Array.of(0.04));
    backend.write(state.scalars.get("teacherMomentum"), Float32Array.of(0.9));
    const row = new Float32Array(8);
    row[GROUP.lr] = 1e-3, row[GROUP.biasCorrection1] = 0.1, row[GROUP.biasCorrection2] = 0.001, row[GROUP.active] = 1;
    backend.write(state.groups, Float32Array.from({ length: size(state.groups) }, (_, i) => row[i % 8]));
    const executable = await compiled(backend, program);
    await executable.run();
    results[limit] = await Promise.all(watched.map((t) => backend.read(t))) as Float32Array[];
    if (limit < bindingBytes) {
      // More than one part each: the products of the logits and of the tokens, the loss, the optimizer.
      for (const kind of ["matmul", "dinoLoss", "optimizerUpdate", "layerNorm", "attention", "centeredSoftmax"]) {
        const { dispatches, program: { ops: run } } = executable; // with what storing and prologues changed
        const parts = dispatches.filter(({ op }) => run[op].kind === kind);
        const ops = run.filter((op) => op.kind === kind).length;
        assert(parts.length > ops, `${kind}: ${parts.length} dispatches for ${ops} operations`);
      }
    }
    executable.dispose();
  }
  watched.forEach((t, i) => {
    const [whole, tiled] = [results[bindingBytes][i], results[LIMIT][i]];
    const largest = whole.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-3);
    // Only sums over rows are added up in another order.
    const off = whole.reduce((a, b, j) => Math.max(a, Math.abs(b - tiled[j])), 0) / largest;
    // Adam divides by the root of its second moment: a gradient near 0 may move a weight by the rate either way.
    assert(off <= (t === state.student.flat ? 2e-3 : 1e-4), `${t.name}: off by ${off} of ${largest}`);
  });
}

onGpu("an update in tiles below the binding limit is the update", compareTiled);

onHalfGpu("an update in tiles below the binding limit is the update in f16", compareTiled);

onGpu("products tile over rows, columns and the inner extent, with what rides on their store", async (backend) => {
  const whole = backend.limits;
  // [m, n, k, transA, transB, epilogue, bytes bound at once]: weights, logits or both beyond the limit.
  const CASES = [
    [128, 256, 64, false, true, "bias", 16384], // W [n, k] in columns of c, x in rows
    [128, 64, 256, false, false, "none", 16384], // W [k, n] over the inner extent: x's columns are brought together
    [256, 64, 192, true, false, "accumulate", 16384], // a weight's gradient: both over the inner extent, c in rows
    [128, 64, 64, false, true, "gelu", 16384], // rows, with GELU, its argument, residual and row scales
    [64, 256, 128, false, true, "accumulate", 32768],
  ] as const;
  for (const lanes of whole.lanes > 0 ? [whole.lanes, 0] : [0]) {
    for (const [m, n, k, transA, transB, rides, bindingBytes] of CASES) {
      backend.limits = { ...whole, lanes, bindingBytes };
      const a = tensor("a", transA ? [k, m] : [m, k], "input"), b = tensor("b", transB ? [n, k] : [k, n], "input");
      const bias = tensor("bias", [n], "input"), residual = tensor("residual", [m, n], "input");
      const c = tensor("c", [m, n], "state"), pre = tensor("pre", [m, n], "output");
      const gelu = rides === "gelu";
      const program = () => {
        const p = new Program("product");
        p.emit<MatmulOp>({
          kind: "matmul",
          in: { a, b, bias: rides === "bias" || gelu ? bias : undefined, residual: gelu ? residual : undefined },
          out: { c, pre: gelu ? pre : undefined },
          attrs: { transA, transB, epilogue: gelu ? "gelu" : "none", accumulate: rides === "accumulate" },
        });
        return p;
      };
      const { dispatches } = await compiled(backend, program());
      assert(dispatches.length > 1, `${m}×${n}×${k} ${rides}: ${dispatches.length} dispatches`);
      const outputs = gelu ? [c, pre] : [c];
      await assertAgrees(`${m}×${n}×${k} ${rides}`, backend, program, [a, b, bias, residual, c], outputs, 1e-5);
    }
  }
  backend.limits = { ...whole, bindingBytes: 16384 };
  const p = new Program("product"), a = tensor("a", [64, 256], "input"), b = tensor("b", [64, 256], "input");
  p.emit<MatmulOp>({
    kind: "matmul",
    in: { a, b, residual: tensor("residual", [64, 64], "input") },
    out: { c: tensor("c", [64, 64], "output") },
    attrs: { transA: false, transB: true, epilogue: "none", accumulate: false },
  });
  await assertRejects(() => backend.compile(p), RangeError, "smaller batch");
  assertEquals(whole.bindingBytes > 16384, true);
});

/** Two small networks with every operation that only ResNets and XCiTs have, and what each must leave. */
function convolutional() {
  const images = 512, C = 16, grid = { images, height: 4, width: 4 };
  const input = (name: string, ...shape: number[]) => tensor(name, shape, "input");
  const x = input("x", images * 16, C), dy = input("dy", images, C), kernel = input("kernel", C, C, 3, 3);
  const gain = input("gain", C), shift = input("shift", C), temperature = input("temperature", 2);
  const depthwise = input("depthwise", C, 1, 3, 3), qkv = input("qkv", 3 * C, C), scale = input("scale", images);
  const mean = tensor("mean", [C], "state"), variance = tensor("variance", [C], "state");
  const wrt = [x, kernel, gain, shift, temperature, depthwise].map((t) =>
    [t, tensor(`d${t.name}`, t.shape, "output")] as const
  );
  const resnet = () => {
    const p = new Program("resnet");
    const filtered = conv2d(p, x, grid, kernel, { padding: 1 });
    const statistics = { weight: gain, bias: shift, runningMean: mean, runningVar: variance };
    const normed = batchNorm(p, filtered.y, statistics, { training: true });
    const pooled = maxPool(p, relu(p, normed, filtered.y), filtered.grid, { kernel: 3, stride: 2, padding: 1 });
    const made = averagePool(p, pooled.y, images);
    differentiate(p, { seeds: [[made, dy]], wrt: wrt.slice(0, 4) });
    return p;
  };
  const xcit = () => {
    const p = new Program("xcit");
    const local = depthwiseConv(p, x, grid, depthwise);
    const kept = layerScale(p, local, gain, { residual: x, rowScale: scale });
    const made = crossCovariance(p, linear(p, kept, qkv), temperature, { images, tokens: 16, heads: 2 });
    differentiate(p, { seeds: [[averagePool(p, made, images), dy]], wrt: [wrt[0], wrt[2], wrt[4], wrt[5]] });
    return p;
  };
  const inputs = [x, dy, kernel, gain, shift, temperature, depthwise, qkv, scale, mean, variance];
  return { inputs, resnet, xcit, gradients: wrt.map(([, t]) => t), moving: [mean, variance] };
}

onGpu("convolutions, batch norm, pooling and cross-covariance in tiles agree with the reference", async (backend) => {
  const whole = backend.limits;
  const counts: Record<string, number>[] = [];
  for (const bindingBytes of [whole.bindingBytes, 81920]) {
    backend.limits = { ...whole, bindingBytes };
    const { inputs, resnet, xcit, gradients, moving } = convolutional();
    const parts: Record<string, number> = {};
    for (const make of [resnet, xcit]) {
      const { dispatches, program } = await compiled(backend, make());
      for (const { op } of dispatches) parts[program.ops[op].kind] = (parts[program.ops[op].kind] ?? 0) + 1;
    }
    counts.push(parts);
    const values = (t: Tensor, i: number) => randomValues(size(t), i + 1, t.name === "variance" ? 0 : 0.5);
    const both = () => {
      const p = resnet();
      for (const op of xcit().ops) p.emit(op);
      return p;
    };
    const [, statistics] = moving;
    await assertAgrees(`bound by ${bindingBytes}`, backend, both, inputs, [...gradients, statistics], 2e-5, values);
  }
  const [once, cut] = counts;
  for (const kind of CUT_BY_IMAGES) {
    assert(cut[kind] > once[kind], `${kind}: ${cut[kind]} dispatches, whole ${once[kind]}`);
  }
});

const CUT_BY_IMAGES = [
  ...[
    "conv2d",
    "conv2dInputGradient",
    "conv2dWeightGradient",
    "batchNorm",
    "batchNormBackward",
    "relu",
    "reluBackward",
  ],
  ...[
    "maxPool",
    "maxPoolBackward",
    "averagePool",
    "averagePoolBackward",
    "depthwiseConv",
    "depthwiseConvWeightGradient",
  ],
  ...["layerScale", "layerScaleBackward", "crossCovariance", "crossCovarianceBackward"],
];
