// What it brings that products compute layer norms, GELUs and row factors as they read their operands, instead of reading results.

import { planRun, setUpStep } from "../../dino/run/plan.ts";
import { arenaBytes, PROLOGUE_USES, type WebGpu } from "../../gpu/mod.ts";
import { differentiate } from "../../models/graph/autodiff.ts";
import { linear } from "../../models/graph/ops/matmul.ts";
import { layerNorm } from "../../models/graph/ops/norm.ts";
import { Program } from "../../models/graph/program.ts";
import { size, type Tensor, tensor } from "../../models/graph/tensor.ts";
import { type BenchCase, type BenchOptions, noise, programCase } from "./case.ts";
import { freed, tokensOf, widthOf } from "./kernels.ts";
import { configOf, images } from "./training.ts";

/** The MLP half of a block and its gradients in each way, and what an update of the batch keeps then. WebGPU only. */
export async function* prologueCases(options: BenchOptions): AsyncGenerator<BenchCase> {
  if (options.backend.name !== "webgpu") return;
  const backend = options.backend as WebGpu, { limits } = backend;
  const { arch, batchSize, patchSize, globalCropSize, everything } = options;
  const { embedDim: D } = widthOf(arch);
  const tokens = tokensOf(globalCropSize, patchSize), crops = 2 * batchSize;
  for (const prologues of PROLOGUE_USES) {
    if (everything && prologues === "all") continue; // for experiments
    const program = new Program("half of a block");
    const tensors = writeHalf(program, crops * tokens, D, crops);
    for (const [i, t] of tensors.entries()) backend.write(t, noise(size(t), i + 1));
    backend.limits = { ...limits, prologues };
    try {
      const kept = arenaBytes(updateOf(options), backend.precision, backend.limits);
      const about = {
        name: "prologues",
        shape: `${prologues}: norm, fc1, GELU, fc2 and gradients, [${crops}·${tokens}, ${D}] (${arch}/${patchSize})`,
      };
      for await (const made of freed(backend, tensors, programCase(backend, program, about))) {
        yield { ...made, note: `activations of an update: ${(kept / 1e9).toPrecision(4)} GB` };
      }
    } finally {
      backend.limits = limits;
    }
  }
}

/** x + scale·fc2(GELU(fc1(norm(x)))) of a student's block under drop path, and every gradient; returns what it reads and writes. */
function writeHalf(p: Program, rows: number, D: number, crops: number): Tensor[] {
  const x = tensor("x", [rows, D], "input"), dy = tensor("dy", [rows, D], "input");
  const scale = tensor("drop path", [crops], "input"), dx = tensor("dx", [rows, D], "output");
  const parameters = [[D], [D], [4 * D, D], [4 * D], [D, 4 * D], [D]].map((shape, i) => tensor(`${i}`, shape, "param"));
  const [weight, bias, w1, b1, w2, b2] = parameters;
  const gradients = parameters.map((t) => [t, tensor(`d${t.name}`, t.shape, "state")] as const);
  const hidden = linear(p, layerNorm(p, x, weight, bias, 1e-6), w1, b1, { gelu: true });
  const y = linear(p, hidden, w2, b2, { residual: x, rowScale: scale });
  differentiate(p, { seeds: [[y, dy]], wrt: [[x, dx], ...gradients] });
  return [x, dy, scale, dx, ...parameters, ...gradients.map(([, t]) => t)];
}

function updateOf(options: BenchOptions): Program {
  const source = images(options);
  const { programs } = setUpStep(planRun(configOf(options), source));
  source.close();
  return programs.parts[0];
}
