// Kinds dino_head and dino_loss.
import { Arena, layoutSegments, packSegments } from "../../../models/graph/arena.ts";
import { differentiate } from "../../../models/graph/autodiff.ts";
import type { Backend } from "../../../models/graph/backend.ts";
import { emitColumnSum, emitSum } from "../../../models/graph/ops/elementwise.ts";
import { centeredSoftmax, dinoLoss, lossTerms } from "../../../models/graph/ops/dino_loss.ts";
import { Program } from "../../../models/graph/program.ts";
import { tensor } from "../../../models/graph/tensor.ts";
import { dinoHead, headBufferShapes, headConfig, headShapes } from "../../../models/dino_head.ts";
import { teacherTempAt } from "../../../dino/schedule.ts";
import type { GoldenCase } from "../golden_case.ts";
import { compareBatchCounts, input, loadParameters, output, runOnce } from "../run_program.ts";

export async function dinoHeadKind(golden: GoldenCase, backend: Backend) {
  const k = golden.config;
  const c = headConfig({
    inDim: k.in_dim,
    outDim: k.out_dim,
    layers: k.nlayers,
    hiddenDim: k.hidden_dim,
    bottleneckDim: k.bottleneck_dim,
    batchNorm: k.use_bn,
    normLastLayer: k.norm_last_layer,
  });
  const { arena, gradients, parameters } = loadParameters(backend, golden, "param.", headShapes(c));
  const bufferSegments = layoutSegments(headBufferShapes(c));
  const buffers = new Arena("buffer", bufferSegments, "state");
  if (bufferSegments.length) {
    backend.write(buffers.flat, packSegments(bufferSegments, (s) => golden.floats(`param.${s.name}`)));
  }
  const all = (name: string) => buffers.tensors.get(name) ?? parameters(name);

  const x = input(backend, "x", golden.shape("input"), golden.floats("input"));
  const cotangent = input(backend, "cotangent", golden.shape("cotangent"), golden.floats("cotangent"));
  const dx = tensor("d(x)", x.shape, "output");
  const p = new Program("head");
  const { logits, bottleneck } = dinoHead(p, all, c, x);
  const outputs = { logits: output(p, logits), bottleneck: output(p, bottleneck) };
  const trained = arena.segments.filter((s) => !(c.normLastLayer && s.name === "last_layer.weight_g"));
  differentiate(p, {
    seeds: [[logits, cotangent]],
    wrt: [[x, dx], ...trained.map((s) => [arena.get(s.name), gradients.get(s.name)] as const)],
  });
  await runOnce(backend, p);
  const got = await backend.read(outputs.logits);
  golden.compare("output.logits", got);
  golden.compare("output.bottleneck", await backend.read(outputs.bottleneck));
  golden.compareScalar("loss", golden.data("cotangent").reduce((sum, v, i) => sum + v * got[i], 0));
  golden.compare("grad.input", await backend.read(dx));
  for (const { name } of trained) golden.compare(`grad.${name}`, await backend.read(gradients.get(name)));
  for (const { name } of bufferSegments) golden.compare(`state_after.${name}`, await backend.read(buffers.get(name)));
  compareBatchCounts(golden, p, buffers);

  const evaluation = new Program("head eval");
  const evaluated = output(evaluation, dinoHead(evaluation, all, c, x, { training: false }).logits);
  await runOnce(backend, evaluation);
  golden.compare("output.logits_eval", await backend.read(evaluated));
}

export async function dinoLossKind(golden: GoldenCase, backend: Backend) {
  const k = golden.config;
  const globals = golden.shape("call0.teacher")[0] / k.batch, views = k.ncrops;
  const schedule = Array.from(
    { length: k.epochs },
    (_, epoch) => teacherTempAt(epoch, k.warmup_teacher_temp, k.teacher_temp, k.warmup_teacher_temp_epochs),
  );
  if ("teacher_temp_schedule" in golden.expected) golden.compareScalar("teacher_temp_schedule", schedule);

  const center = tensor("center", [k.out_dim], "state"), sum = tensor("sum", [k.out_dim], "state");
  const student = tensor("student", golden.shape("call0.student"), "input");
  const teacher = tensor("teacher", golden.shape("call0.teacher"), "input");
  const temperature = tensor("temperature", [1], "input");
  const loss = tensor("loss", [1], "output"), entropy = tensor("entropy", [1], "output");
  const scale = 1 / (lossTerms(globals, views) * k.batch);
  const p = new Program("loss");
  emitColumnSum(p, teacher, { tensor: sum, accumulate: false });
  const target = centeredSoftmax(p, teacher, center, temperature);
  const probs = output(p, target.probs);
  const { dlogits, losses } = dinoLoss(p, student, target.probs, {
    views,
    globals,
    images: k.batch,
    temperature: k.student_temp,
    gradientScale: scale,
  });
  const gradient = output(p, dlogits);
  emitSum(p, losses, loss, scale);
  emitSum(p, target.entropy, entropy, 1 / (globals * k.batch));
  p.emit({
    kind: "centerUpdate",
    in: { sum, center },
    out: { center },
    attrs: { momentum: k.center_momentum, rows: globals * k.batch },
  });
  const executable = await backend.compile(p);
  for (const [i, epoch] of (k.call_epochs as number[]).entries()) {
    golden.compare(`call${i}.center_before`, await backend.read(center));
    backend.write(student, golden.floats(`call${i}.student`));
    backend.write(teacher, golden.floats(`call${i}.teacher`));
    backend.write(temperature, Float32Array.of(schedule[epoch]));
    await executable.run();
    golden.compare(`call${i}.teacher_probs`, await backend.read(probs));
    golden.compare(`call${i}.grad_student`, await backend.read(gradient));
    golden.compare(`call${i}.center_after`, await backend.read(center));
    const [l, h] = [(await backend.read(loss))[0], (await backend.read(entropy))[0]];
    golden.compareScalar(`call${i}.loss`, l);
    golden.compareScalar(`call${i}.teacher_entropy`, h);
    golden.compareScalar(`call${i}.kl`, l - h);
    if (`call${i}.teacher_temp` in golden.expected) golden.compareScalar(`call${i}.teacher_temp`, schedule[epoch]);
  }
}
