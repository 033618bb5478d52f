// Kind resnet.
import { Arena, layoutSegments, packSegments } from "../../../models/graph/arena.ts";
import { differentiate } from "../../../models/graph/autodiff.ts";
import type { Backend } from "../../../models/graph/backend.ts";
import { patchify } from "../../../models/graph/ops/tokens.ts";
import { Program } from "../../../models/graph/program.ts";
import { tensor } from "../../../models/graph/tensor.ts";
import { resnet, resnetBufferShapes, resnetConfig, resnetShapes } from "../../../models/resnet.ts";
import type { GoldenCase } from "../golden_case.ts";
import { compareBatchCounts, input, loadParameters, output, runOnce } from "../run_program.ts";

export async function resnetKind(golden: GoldenCase, backend: Backend) {
  const k = golden.config;
  const shape = golden.shape("input"), [images, inChannels, height, width] = shape;
  const c = resnetConfig({
    block: k.block,
    layers: k.layers,
    basePlanes: k.base_planes,
    inChannels,
    batchNormEps: k.bn_eps,
    batchNormMomentum: k.bn_momentum,
  });
  const { arena, gradients, parameters } = loadParameters(backend, golden, "param.", resnetShapes(c));
  const buffers = new Arena("buffer", layoutSegments(resnetBufferShapes(c)), "state");
  backend.write(buffers.flat, packSegments(buffers.segments, (s) => golden.floats(`param.${s.name}`)));
  const all = (name: string) => buffers.tensors.get(name) ?? parameters(name);
  const image = input(backend, "image", shape, golden.floats("input"));
  const cotangent = input(backend, "cotangent", golden.shape("cotangent"), golden.floats("cotangent"));
  const forward = (p: Program, training: boolean) =>
    resnet(p, all, c, { patches: patchify(p, image, 1), images, height, width }, { training }).features;

  const evaluation = new Program("resnet eval");
  const evaluated = output(evaluation, forward(evaluation, false));
  await runOnce(backend, evaluation);
  golden.compare("output.eval", await backend.read(evaluated));

  const p = new Program("resnet");
  const features = forward(p, true), trained = output(p, features);
  const dimage = tensor("d(image)", image.shape, "output");
  differentiate(p, {
    seeds: [[features, cotangent]],
    wrt: [[image, dimage], ...arena.segments.map((s) => [arena.get(s.name), gradients.get(s.name)] as const)],
  });
  await runOnce(backend, p);
  const got = await backend.read(trained);
  golden.compare("output.train", got);
  golden.compareScalar("loss", golden.data("cotangent").reduce((sum, v, i) => sum + v * got[i], 0));
  golden.compare("grad.input", await backend.read(dimage));
  for (const { name } of arena.segments) golden.compare(`grad.${name}`, await backend.read(gradients.get(name)));
  for (const { name } of buffers.segments) golden.compare(`state_after.${name}`, await backend.read(buffers.get(name)));
  compareBatchCounts(golden, p, buffers);
}
