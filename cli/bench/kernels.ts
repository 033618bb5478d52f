// Matrix products and attention, at the sizes of a transformer.

import { differentiate } from "../../models/graph/autodiff.ts";
import { attention } from "../../models/graph/ops/attention.ts";
import { linear, matmul } from "../../models/graph/ops/matmul.ts";
import { Program } from "../../models/graph/program.ts";
import { size, type Tensor, tensor } from "../../models/graph/tensor.ts";
import { headConfig } from "../../models/dino_head.ts";
import { VIT_SIZES } from "../../models/vit.ts";
import { type BenchCase, type BenchOptions, noise, programCase } from "./case.ts";

/** Width and heads of an arch. */
export function widthOf(arch: string): { embedDim: number; numHeads: number; depth: number } {
  return VIT_SIZES[arch.replace(/^deit_/, "vit_") as keyof typeof VIT_SIZES];
}

/** Tokens of a crop: patches and [CLS]. */
export const tokensOf = (crop: number, patch: number) => Math.floor(crop / patch) ** 2 + 1;

/** Matrix products: cubes, and those of one block of the arch. */
export async function* gemmCases(options: BenchOptions): AsyncGenerator<BenchCase> {
  const { backend, arch, batchSize, patchSize, globalCropSize, cubes, inARow, everything } = options;
  const name = "gemm", note = inARow > 1 ? `${inARow} in a row` : undefined;
  for (const n of cubes) {
    const p = new Program("gemm"), operands: Tensor[] = [];
    for (let i = 0; i < inARow; i++) {
      const a = tensor(`a ${i}`, [n, n], "input"), b = tensor(`b ${i}`, [n, n], "input");
      keep(p, matmul(p, a, b));
      operands.push(a, b);
    }
    fill(backend, operands);
    yield* freed(backend, operands, programCase(backend, p, { name, shape: `[${n}, ${n}]×[${n}, ${n}]`, note }));
  }
  const { embedDim: D } = widthOf(arch);
  const N = tokensOf(globalCropSize, patchSize), rows = batchSize * N;
  const layers = [["qkv", D, 3 * D], ["proj", D, D], ["fc1", D, 4 * D], ["fc2", 4 * D, D]] as const;
  for (const [layer, inputs, outputs] of layers) {
    const p = new Program("linear"), operands: Tensor[] = [];
    for (let i = 0; i < inARow; i++) {
      const x = tensor(`x ${i}`, [rows, inputs], "input"), w = tensor(`w ${i}`, [outputs, inputs], "param");
      const bias = tensor(`bias ${i}`, [outputs], "param");
      keep(p, linear(p, x, w, bias, { gelu: layer === "fc1" }));
      operands.push(x, w, bias);
    }
    fill(backend, operands);
    const of = `${layer} of a ${arch}/${patchSize} block`;
    const shape = `[${batchSize}·${N}, ${inputs}]×[${inputs}, ${outputs}] (${of})`;
    const [x, w, ...others] = operands;
    yield* freed(backend, others, programCase(backend, p, { name, shape, note }));
    if (everything) yield* gradientCases(backend, x, w, `${batchSize}·${N}`, of);
    backend.free(x, w);
  }
  if (!everything) return;
  const { bottleneckDim } = headConfig({ inDim: D, outDim: options.outDim });
  const views = 2 + options.localCropsNumber;
  const x = tensor("x", [views * batchSize, bottleneckDim], "input");
  const w = tensor("w", [options.outDim, bottleneckDim], "param");
  fill(backend, [x, w]);
  const p = new Program("linear");
  keep(p, linear(p, x, w));
  const of = "last layer of the head", lead = `${views}·${batchSize}`;
  const shape = `[${lead}, ${bottleneckDim}]×[${bottleneckDim}, ${options.outDim}] (${of})`;
  yield* freed(backend, [], programCase(backend, p, { name: "gemm", shape }));
  yield* gradientCases(backend, x, w, lead, of);
  backend.free(x, w);
}

/** The products that give the gradients of a linear layer's input and weight. */
async function* gradientCases(backend: BenchOptions["backend"], x: Tensor, w: Tensor, rows: string, of: string) {
  const [outputs, inputs] = w.shape;
  const dy = tensor("dy", [x.shape[0], outputs], "input");
  backend.write(dy, noise(size(dy), 4));
  const input = new Program("gradient of an input"), weight = new Program("gradient of a weight");
  keep(input, matmul(input, dy, w));
  keep(weight, matmul(weight, dy, x, { transA: true }));
  const ofInput = `[${rows}, ${outputs}]×[${outputs}, ${inputs}] (gradient of the input, ${of})`;
  yield* freed(backend, [], programCase(backend, input, { name: "gemm", shape: ofInput }));
  const ofWeight = `[${outputs}, ${rows}]×[${rows}, ${inputs}] (gradient of the weight, ${of})`;
  yield* freed(backend, [dy], programCase(backend, weight, { name: "gemm", shape: ofWeight }));
}

/** Attention of global and local crops, forward and backward. */
export async function* attentionCases(options: BenchOptions): AsyncGenerator<BenchCase> {
  const { backend, arch, batchSize, patchSize, globalCropSize, localCropSize, localCropsNumber } = options;
  const { embedDim: D, numHeads: heads } = widthOf(arch);
  const crops = [[globalCropSize, 2], [localCropSize, localCropsNumber]].filter(([, views]) => views > 0);
  const measured = [
    ...crops.map(([crop, views]) =>
      [tokensOf(crop, patchSize), batchSize * views, `${views} crops of ${crop} px`] as const
    ),
    ...options.attention.map(([tokens, images]) => [tokens, images, `${tokens} tokens`] as const),
  ];
  for (const [tokens, images, what] of measured) {
    const attrs = { images, tokens, heads, queries: tokens };
    const qkv = tensor("qkv", [images * tokens, 3 * D], "input");
    backend.write(qkv, noise(size(qkv)));
    const shape = `[${images}·${tokens}, 3·${D}], ${heads} heads (${what})`;
    const forward = new Program("attention");
    keep(forward, attention(forward, qkv, attrs));
    yield* freed(
      backend,
      [],
      programCase(backend, forward, { name: "attention", shape: `forward ${shape}`, images: batchSize }),
    );
    const both = new Program("attention and gradient");
    const dy = tensor("dy", [images * tokens, D], "input"), dqkv = tensor("dqkv", qkv.shape, "output");
    differentiate(both, { seeds: [[attention(both, qkv, attrs), dy]], wrt: [[qkv, dqkv]] });
    backend.write(dy, noise(size(dy), 3));
    yield* freed(
      backend,
      [qkv, dy, dqkv],
      programCase(backend, both, { name: "attention", shape: `forward and backward ${shape}`, images: batchSize }),
    );
  }
}

function fill(backend: BenchOptions["backend"], operands: readonly Tensor[]): void {
  for (const [i, t] of operands.entries()) backend.write(t, noise(size(t), i + 1));
}

/** Makes an output of y, which the last operation computes: nobody reads an activation at the end of a program, and what nobody reads is not computed. */
export function keep(p: Program, y: Tensor): void {
  const last = p.ops.at(-1)!;
  const out = last.out as Record<string, Tensor | undefined>;
  for (const [slot, t] of Object.entries(out)) if (t === y) out[slot] = tensor("y", y.shape, "output");
}

/** Yields a case, then frees what it computed with. */
export async function* freed(backend: BenchOptions["backend"], tensors: Tensor[], making: Promise<BenchCase>) {
  const made = await making;
  try {
    yield made;
  } finally {
    made.dispose();
    backend.free(...tensors);
  }
}
