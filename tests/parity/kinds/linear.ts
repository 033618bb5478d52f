// Kinds linear_eval and linear_features.
import type { Backend } from "../../../models/graph/backend.ts";
import { patchify } from "../../../models/graph/ops/tokens.ts";
import { Program } from "../../../models/graph/program.ts";
import { scoreLogits } from "../../../dino/eval/classification.ts";
import { LinearProbe, probeLearningRate } from "../../../dino/eval/linear/linear.ts";
import { linearFeatures } from "../../../dino/eval/linear/features.ts";
import { vit, vitShapes } from "../../../models/vit.ts";
import type { GoldenCase } from "../golden_case.ts";
import { input, loadParameters, output, runOnce } from "../run_program.ts";
import { backboneOf } from "./vit.ts";

export async function linearEval(golden: GoldenCase, backend: Backend) {
  const { dim, num_labels: classes, batch, epochs, iters_per_epoch, steps, lr, batch_for_scaling, val_batch } =
    golden.config;
  const base = lr * batch_for_scaling / 256;
  // Two learning rates side by side: what the other one does must not matter.
  const options = { dim, classes, batch, epochs, learningRates: [base, base / 2], momentum: golden.config.momentum };
  const probe = await LinearProbe.create(backend, { ...options, weightDecay: golden.config.weight_decay });
  const start = { weight: golden.floats("param.linear.weight"), bias: golden.floats("param.linear.bias") };
  probe.setWeights([start, start]);
  const features = golden.floats("train_features"), labels = golden.data("train_labels");
  const valFeatures = golden.floats("val_features"), valLabels = golden.data("val_labels");
  const losses: number[] = [], rates: number[] = [];
  let logits = new Float32Array();
  for (let i = 0; i < steps; i++) {
    const epoch = Math.floor(i / iters_per_epoch);
    rates.push(probeLearningRate(base, epoch, epochs));
    const rows = features.subarray(i * batch * dim, (i + 1) * batch * dim);
    await probe.step(rows, labels.subarray(i * batch, (i + 1) * batch), epoch);
    losses.push((await probe.losses())[0]);
    if ((i + 1) % iters_per_epoch) continue;
    [logits] = await probe.logits(valFeatures) as Float32Array<ArrayBuffer>[];
    const score = scoreLogits(logits, valLabels, classes, val_batch);
    golden.compareScalar(`epoch${epoch}.acc1`, score.top1);
    if (`epoch${epoch}.acc5` in golden.expected) golden.compareScalar(`epoch${epoch}.acc5`, score.top5);
    golden.compareScalar(`epoch${epoch}.val_loss_reference`, score.lossOfBatches);
    golden.compareScalar(`epoch${epoch}.val_loss_sample_mean`, score.loss);
  }
  golden.compare("output.losses", losses);
  golden.compare("output.lr", rates);
  golden.compare("output.val_logits", logits);
  const [final] = await probe.weights(), [momentum] = await probe.momenta();
  golden.compare("output.final.linear.weight", final.weight);
  golden.compare("output.final.linear.bias", final.bias);
  golden.compare("output.momentum.linear.weight", momentum.weight);
  golden.compare("output.momentum.linear.bias", momentum.bias);
  await probe.dispose();
}

export async function linearFeaturesKind(golden: GoldenCase, backend: Backend) {
  const c = backboneOf(golden.config);
  const { parameters } = loadParameters(backend, golden, "param.", vitShapes(c));
  const p = new Program("linear features");
  const [images, , height, width] = golden.shape("input");
  const image = input(backend, "image", golden.shape("input"), golden.floats("input"));
  const result = vit(p, parameters, c, { patches: patchify(p, image, c.patchSize), images, height, width });
  const outputs = golden.namesUnder("output.").map((name) => {
    const [, n, average] = /^n(\d+)_avg([01])$/.exec(name)!;
    const options = { lastBlocks: Number(n), patchAverage: average === "1" ? "interleaved" : "none" } as const;
    return [name, output(p, linearFeatures(p, parameters, c, result, images, options))] as const;
  });
  await runOnce(backend, p);
  for (const [name, t] of outputs) golden.compare(`output.${name}`, await backend.read(t));
}
