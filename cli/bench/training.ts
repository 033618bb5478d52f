// Whole passes: an update of DINO, a forward pass, augmentation, and a k-NN search.

import { distinctPrograms } from "../../dino/step.ts";
import { type Config, defaultConfig } from "../../dino/config.ts";
import { CropFeed } from "../../dino/crop_feed.ts";
import { pixelsFromMemory } from "../../dino/data/memory.ts";
import type { PixelSource } from "../../dino/data/dataset.ts";
import { openNeighbours } from "../../dino/eval/knn/device_neighbours.ts";
import { initializeState } from "../../dino/initialize.ts";
import { OptimizerSteps } from "../../dino/optimizer.ts";
import { fitRecomputation } from "../../dino/memory/fit.ts";
import { describeRecomputation, recomputations } from "../../dino/memory/recomputations.ts";
import { planRun, type RunPlan, setUpStep } from "../../dino/run/plan.ts";
import { scheduledValues } from "../../dino/schedule.ts";
import type { Executable } from "../../models/graph/backend.ts";
import { emitCopy } from "../../models/graph/ops/elementwise.ts";
import { patchify } from "../../models/graph/ops/tokens.ts";
import { Program } from "../../models/graph/program.ts";
import { size, type Tensor, tensor } from "../../models/graph/tensor.ts";
import { backboneBufferShapes, backboneFeatures, backboneShapes, inputPatch } from "../../models/backbone.ts";
import { RECOMPUTATIONS } from "./recomputation.ts";
import { type BenchCase, type BenchOptions, noise, programCase, programFlops } from "./case.ts";

/** The run that an update of these sizes belongs to. */
export function configOf(options: BenchOptions): Config {
  const { arch, patchSize, batchSize, globalCropSize, localCropSize, localCropsNumber, outDim } = options;
  return {
    ...defaultConfig(),
    ...{ arch: arch as Config["arch"], patchSize, batchSize, globalCropSize, localCropSize, localCropsNumber, outDim },
    epochs: 100,
  };
}

/** Images a little larger than the crop, as many as a batch. */
export function images({ batchSize, globalCropSize }: BenchOptions): PixelSource {
  const side = Math.round(globalCropSize * 256 / 224);
  const data = Uint8Array.from(noise(batchSize * side * side * 3), (value) => 128 + 127 * value);
  return pixelsFromMemory({ name: "noise", height: side, width: side, channels: 3, data });
}

/** An architecture with its patch size, where it has one to choose. */
const nameOf = ({ arch, patchSize }: BenchOptions) => /^(vit|deit)_/.test(arch) ? `${arch}/${patchSize}` : arch;

const cropsOf = ({ globalCropSize, localCropSize, localCropsNumber }: BenchOptions) =>
  `2×${globalCropSize}${localCropsNumber > 0 ? ` + ${localCropsNumber}×${localCropSize}` : ""}`;

/** The plan with what `--recompute` says. */
async function withRecomputation(plan: RunPlan, { recompute, backend }: BenchOptions): Promise<RunPlan> {
  if (recompute === undefined || recompute === "auto") return await fitRecomputation(plan, backend);
  return { ...plan, recompute: recomputations(plan.config)[RECOMPUTATIONS.indexOf(recompute)] };
}

/** One update: crops, both networks, loss, gradients, optimizer, teacher. */
export async function* stepCases(options: BenchOptions): AsyncGenerator<BenchCase> {
  const { backend, batchSize, outDim } = options;
  const source = images(options);
  const plan = await withRecomputation(planRun(configOf(options), source), options);
  const { state, feed, programs } = setUpStep(plan);
  const executables: Executable[] = [];
  for (const program of distinctPrograms(programs)) {
    executables.push(await backend.compile(program));
  }
  await initializeState(backend, state, plan.config);
  const indices = Array.from({ length: batchSize }, (_, i) => i);
  const batch = await source.readBatch(indices);
  const optimizer = new OptimizerSteps(plan.config);
  let step = 0;
  feed.plan(batch, indices, 0);
  yield {
    name: "step",
    shape: `${nameOf(options)}, batch ${batchSize}, ${cropsOf(options)}, K ${outDim}`,
    flops: programs.parts.reduce((sum, program) => sum + programFlops(program), 0),
    images: batchSize,
    note: `${describeRecomputation(plan.recompute ?? {})}, ${
      (backend.memory.arena / 1e6).toFixed(0)
    } MB of activations`,
    run: async () => {
      const values = scheduledValues(plan.config, plan.stepsPerEpoch, step % plan.totalSteps);
      const { teacherTemp, momentum: teacherMomentum } = values;
      state.writeScalars(backend, { groups: optimizer.next(values), teacherTemp, teacherMomentum, ringRow: 0 });
      feed.write(backend, batch, step++, 0);
      const running = (async () => {
        for (const executable of executables) await executable.run();
      })();
      feed.plan(batch, indices, step); // the next crops are drawn while the device works, as in training
      await running;
    },
    finish: () => backend.finish(),
    profile: executables[0].profile && (async () => {
      const micros = await executables[0].profile!();
      return executables[0].program.ops.map((op, i) => ({ name: op.kind, milliseconds: micros[i] / 1000 }));
    }),
    dispose() {},
  };
  for (const executable of executables) executable.dispose();
  backend.free(
    ...feed.tensors(),
    ...[state.student, state.teacher, state.gradients, state.first, state.second].flatMap((arena) => arena?.flat ?? []),
  );
  source.close();
}

/** Features of a batch of crops: a forward pass of the backbone. */
export async function* forwardCases(options: BenchOptions): AsyncGenerator<BenchCase> {
  const { backend, batchSize, globalCropSize } = options;
  const source = images(options);
  const { network } = planRun(configOf(options), source);
  source.close();
  const { backbone } = network;
  const parameters = new Map<string, Tensor>();
  for (const [name, shape] of [...backboneShapes(backbone), ...backboneBufferShapes(backbone)]) {
    const t = tensor(name, shape, "param"), shift = name.endsWith(".running_var") ? 1 : 0;
    backend.write(t, noise(size(t)).map((value) => shift + 0.03 * value));
    parameters.set(name, t);
  }
  const program = new Program("forward");
  const pixels = tensor("pixels", [batchSize, 3, globalCropSize, globalCropSize], "input");
  backend.write(pixels, noise(size(pixels)));
  const patches = patchify(program, pixels, inputPatch(backbone));
  const crops = { patches, images: batchSize, height: globalCropSize, width: globalCropSize };
  const lookUp = (name: string) => parameters.get(name)!;
  const cls = backboneFeatures(program, lookUp, backbone, [crops], { training: false });
  const features = tensor("features", cls.shape, "output");
  emitCopy(program, cls, features);
  const shape = `${nameOf(options)}, batch ${batchSize}, ${globalCropSize} px`;
  const made = await programCase(backend, program, { name: "forward", shape, images: batchSize });
  yield made;
  made.dispose();
  backend.free(pixels, features, ...parameters.values());
}

/** The crops of a batch, from pixels to patches, with the drawing of their parameters. */
export async function* augmentCases(options: BenchOptions): AsyncGenerator<BenchCase> {
  const { backend, batchSize } = options;
  const source = images(options);
  const plan = planRun(configOf(options), source);
  const feed = new CropFeed(plan.config, plan.network.backbone, batchSize, plan.extremes);
  const program = new Program("augment");
  const crops = feed.source(program);
  const outputs = crops.student.map(({ patches }) => {
    const output = tensor("crops", patches.shape, "output");
    for (const op of program.ops) {
      const out = op.out as Record<string, Tensor | undefined>;
      for (const [slot, t] of Object.entries(out)) if (t === patches) out[slot] = output;
    }
    return output;
  });
  const executable = await backend.compile(program);
  const indices = Array.from({ length: batchSize }, (_, i) => i);
  const batch = await source.readBatch(indices);
  let epoch = 0;
  yield {
    name: "augment",
    shape: `batch ${batchSize}, ${cropsOf(options)}`,
    images: batchSize,
    run: async () => {
      feed.plan(batch, indices, epoch);
      feed.write(backend, batch, epoch++, 0);
      await executable.run();
    },
    finish: () => backend.finish(),
    profile: executable.profile && (async () => {
      const micros = await executable.profile!();
      return executable.program.ops.map((op, i) => ({ name: op.kind, milliseconds: micros[i] / 1000 }));
    }),
    dispose() {},
  };
  executable.dispose();
  backend.free(...outputs, ...feed.tensors());
  source.close();
}

/** Nearest neighbours of test features among training features that lie on the device. */
export async function* knnCases({ backend, neighbours }: BenchOptions): AsyncGenerator<BenchCase> {
  const [queries, database, dim, k] = neighbours;
  const asked = noise(queries * dim), known = noise(database * dim, 2);
  const start = performance.now();
  const bank = await openNeighbours(backend, known, dim, { k, queries });
  await backend.finish();
  const seconds = (performance.now() - start) / 1000;
  yield {
    name: "knn",
    shape: `${queries} queries, ${database} features of ${dim}, k = ${k}`,
    flops: 2 * queries * database * dim,
    images: queries,
    note: `database put on the device in ${seconds.toFixed(2)} s`,
    run: async () => void await bank.search(asked),
    dispose: () => bank.close(),
  };
  bank.close();
}
