// What bandwidth bounds: layer norm, the loss over K outputs, the optimizer.

import { DinoState } from "../../dino/state.ts";
import { differentiate } from "../../models/graph/autodiff.ts";
import { centeredSoftmax, dinoLoss } from "../../models/graph/ops/dino_loss.ts";
import { layerNorm } from "../../models/graph/ops/norm.ts";
import { gradientNorms, optimizerUpdate } from "../../models/graph/ops/optimizer.ts";
import { Program } from "../../models/graph/program.ts";
import { size, type Tensor, tensor } from "../../models/graph/tensor.ts";
import { headConfig } from "../../models/dino_head.ts";
import { vitConfig } from "../../models/vit.ts";
import { type BenchCase, type BenchOptions, noise, programCase } from "./case.ts";
import { freed, keep, tokensOf, widthOf } from "./kernels.ts";

/** Layer norm of the tokens of global crops, forward alone and with its gradients. */
export async function* normCases(options: BenchOptions): AsyncGenerator<BenchCase> {
  const { backend, arch, batchSize, patchSize, globalCropSize } = options;
  const { embedDim: D } = widthOf(arch);
  const rows = 2 * batchSize * tokensOf(globalCropSize, patchSize);
  const x = tensor("x", [rows, D], "input"),
    dy = tensor("dy", [rows, D], "input"),
    dx = tensor("dx", [rows, D], "output");
  const weight = tensor("weight", [D], "param"), bias = tensor("bias", [D], "param");
  const dweight = tensor("dweight", [D], "output"), dbias = tensor("dbias", [D], "output");
  for (const [i, t] of [x, dy, weight, bias].entries()) backend.write(t, noise(size(t), i));
  const forward = new Program("layer norm");
  keep(forward, layerNorm(forward, x, weight, bias, 1e-6));
  const shape = `[${rows}, ${D}] (tokens of ${2 * batchSize} crops of ${globalCropSize} px)`;
  yield* freed(backend, [], programCase(backend, forward, { name: "norm", shape: `forward ${shape}` }));
  const both = new Program("layer norm and gradients");
  const y = layerNorm(both, x, weight, bias, 1e-6);
  differentiate(both, { seeds: [[y, dy]], wrt: [[x, dx], [weight, dweight], [bias, dbias]] });
  const made = programCase(backend, both, { name: "norm", shape: `forward and backward ${shape}` });
  yield* freed(backend, [x, dy, dx, weight, bias, dweight, dbias], made);
}

/** The teacher's centered softmax, and the cross-entropy of all views with its gradient. */
export async function* lossCases(options: BenchOptions): AsyncGenerator<BenchCase> {
  const { backend, batchSize: images, outDim: K, localCropsNumber } = options;
  const views = 2 + localCropsNumber;
  const teacher = tensor("teacher", [2 * images, K], "input"), center = tensor("center", [K], "state");
  const temperature = tensor("temperature", [1], "input");
  backend.write(teacher, noise(size(teacher)));
  backend.write(temperature, Float32Array.of(0.04));
  const softmax = new Program("centered softmax");
  keep(softmax, centeredSoftmax(softmax, teacher, center, temperature).probs);
  const about = { name: "loss", shape: `centered softmax of [2·${images}, ${K}]` };
  yield* freed(backend, [center, temperature], programCase(backend, softmax, about));
  // The teacher's logits do for probabilities: time does not depend on the values.
  const student = tensor("student", [views * images, K], "input");
  backend.write(student, noise(size(student), 2));
  const loss = new Program("loss");
  const attrs = { views, globals: 2, images, temperature: 0.1, gradientScale: 1 / images };
  const { dlogits, losses } = dinoLoss(loss, student, teacher, attrs);
  keep(loss, dlogits);
  keep(loss, losses);
  const shape = `cross-entropy and gradient of [${views}·${images}, ${K}]`;
  yield* freed(backend, [teacher, student], programCase(backend, loss, { name: "loss", shape }));
}

/** Norms per tensor, clipping, AdamW and the teacher's average, over every parameter of an arch and its head. */
export async function* optimizerCases(options: BenchOptions): AsyncGenerator<BenchCase> {
  const { backend, arch, patchSize, globalCropSize, outDim } = options;
  const backbone = vitConfig({ ...widthOf(arch), patchSize, imageSize: globalCropSize });
  const state = new DinoState({ backbone, head: headConfig({ inDim: backbone.embedDim, outDim }) });
  const { student, teacher, gradients, first, second, segments, norms, groups, scalars, metrics } = state;
  const p = new Program("optimizer");
  gradientNorms(p, gradients.flat, student.flat, segments, norms);
  optimizerUpdate(p, {
    param: student.flat,
    grad: gradients.flat,
    first: first.flat,
    second: second!.flat,
    norms,
    groups,
    segments,
    teacher: teacher.flat,
    teacherMomentum: scalars.get("teacherMomentum"),
    frozen: metrics.get("frozen"),
  }, { method: "adamw" });
  const [rows, columns] = groups.shape;
  // Rate, decay, bias corrections, clipping, active.
  backend.write(
    groups,
    Float32Array.from({ length: rows * columns }, (_, i) => [1e-4, 0.04, 0.5, 0.5, 3, 1, 0, 0][i % columns]),
  );
  for (const arena of [student, gradients]) backend.write(arena.flat, noise(size(arena.flat)));
  const count = student.parameterCount;
  const about = {
    name: "optimizer",
    shape: `norms, clipping, AdamW, teacher of ${(count / 1e6).toFixed(1)} M parameters`,
  };
  const tensors: Tensor[] = [
    ...[student, teacher, gradients, first, second!, scalars, metrics].map(({ flat }) => flat),
  ];
  yield* freed(backend, [...tensors, norms, groups], programCase(backend, p, about));
}
