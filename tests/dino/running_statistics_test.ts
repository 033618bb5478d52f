// Running statistics of batch norms in an update: whose they are, in which order they move, and when they must not.
import { packSegments } from "../../models/graph/arena.ts";
import type { Backend } from "../../models/graph/backend.ts";
import type { Program } from "../../models/graph/program.ts";
import { size, type Tensor, tensor } from "../../models/graph/tensor.ts";
import { headConfig } from "../../models/dino_head.ts";
import { initialBuffer, initialParameters } from "../../models/init.ts";
import { resnetConfig } from "../../models/resnet.ts";
import { ReferenceBackend } from "../../models/graph/reference.ts";
import { batchesOfUpdate, countsAfter } from "../../dino/batch_counts.ts";
import { OptimizerSteps } from "../../dino/optimizer.ts";
import { DinoState } from "../../dino/state.ts";
import { stepPrograms } from "../../dino/step.ts";
import { assert, assertEquals } from "../assert.ts";
import { onEachBackend } from "../backends.ts";
import { noise } from "../models/graph/op_cases.ts";

const IMAGES = 3;
const network = {
  backbone: resnetConfig({ block: "basic", layers: [1], basePlanes: 2 }),
  head: headConfig({ inDim: 2, outDim: 5, layers: 2, hiddenDim: 4, bottleneckDim: 3, batchNorm: true }),
};

/** An update of two global views of 9 pixels and one local of 6, whose crops a test writes. */
async function prepare(backend: Backend, accumulate: number) {
  const state = new DinoState(network, "sgd");
  const crops = { global: crop("global", 2, 9), local: crop("local", 1, 6) };
  const programs = stepPrograms(state, {
    images: IMAGES,
    accumulate,
    globals: 2,
    views: 3,
    studentTemp: 0.1,
    centerMomentum: 0.9,
  }, () => ({ teacher: [group(crops.global, 2, 9)], student: [group(crops.global, 2, 9), group(crops.local, 1, 6)] }));
  const values = initialParameters(network, 0);
  for (const arena of [state.student, state.teacher]) {
    backend.write(arena.flat, packSegments(arena.segments, ({ name }) => values.get(name)!));
  }
  const initial = (name: string, length: number) => new Float32Array(length).fill(initialBuffer(name));
  for (const arena of [state.studentBuffers, state.teacherBuffers]) {
    backend.write(arena.flat, packSegments(arena.segments, ({ name, length }) => initial(name, length)));
  }
  const optimizer = new OptimizerSteps({ optimizer: "sgd", adamBeta1: 0.9, adamBeta2: 0.999, clipGrad: 0 });
  const schedule = { lr: 0.1, weightDecay: 0, momentum: 0.9, teacherTemp: 0.05, lastLayerFrozen: false };
  const scalars = { teacherTemp: 0.05, teacherMomentum: 0.9, ringRow: 0 };
  for (const [name, value] of Object.entries(scalars)) backend.write(state.scalars.get(name), Float32Array.of(value));
  const compiled = new Map<Program, Awaited<ReturnType<Backend["compile"]>>>();
  for (const p of [...programs.parts, ...programs.update ? [programs.update] : []]) {
    if (!compiled.has(p)) compiled.set(p, await backend.compile(p));
  }
  const random = noise(5);
  const write = (t: Tensor, poison = false) =>
    backend.write(t, Float32Array.from({ length: size(t) }, (_, i) => poison && i === 7 ? NaN : random()));
  const update = async (poisoned: number | undefined = undefined) => {
    backend.write(state.groups, optimizer.next(schedule));
    for (const [i, part] of programs.parts.entries()) {
      write(crops.global);
      write(crops.local, i === poisoned);
      await compiled.get(part)!.run();
    }
    if (programs.update) await compiled.get(programs.update)!.run();
    await backend.finish();
  };
  const read = async () => ({
    student: [...await backend.read(state.studentBuffers.flat)],
    teacher: [...await backend.read(state.teacherBuffers.flat)],
  });
  return { state, programs, update, read };
}

function crop(name: string, views: number, side: number): Tensor {
  return tensor(name, [views * IMAGES * side * side, 3], "input");
}

function group(patches: Tensor, views: number, side: number) {
  return { patches, images: views * IMAGES, height: side, width: side };
}

Deno.test("batches are counted as PyTorch would: a backbone's by part and size, a head's by part, the teacher's its own", async () => {
  const { state, programs } = await prepare(new ReferenceBackend(), 2);
  const ofUpdate = batchesOfUpdate(state, programs);
  assertEquals(Object.fromEntries(ofUpdate), {
    "student.backbone.bn1.num_batches_tracked": 4,
    "student.backbone.layer1.0.bn1.num_batches_tracked": 4,
    "student.backbone.layer1.0.bn2.num_batches_tracked": 4,
    "student.head.mlp.1.num_batches_tracked": 2,
    "teacher.backbone.bn1.num_batches_tracked": 2,
    "teacher.backbone.layer1.0.bn1.num_batches_tracked": 2,
    "teacher.backbone.layer1.0.bn2.num_batches_tracked": 2,
    "teacher.head.mlp.1.num_batches_tracked": 2,
  });
  const after = countsAfter(new Map([["student.backbone.bn1.num_batches_tracked", 10]]), ofUpdate, 3);
  assertEquals(after.get("student.backbone.bn1.num_batches_tracked"), 22);
  assertEquals(after.get("teacher.head.mlp.1.num_batches_tracked"), 6);
});

onEachBackend("an update moves each network's own running statistics, a part and a size at a time", async (backend) => {
  const { state, update, read } = await prepare(backend, 2);
  const before = await read();
  await update();
  const after = await read();
  const mean = state.studentBuffers.get("backbone.bn1.running_mean").offset!;
  assert(before.student[mean] === 0 && after.student[mean] !== 0 && after.teacher[mean] !== 0);
  assert(after.student[mean] !== after.teacher[mean], "the teacher sees the global views alone");
  // Of variance 1 at first, four passes of momentum 0.1 leave 0.9⁴; the teacher makes two.
  const variance = state.studentBuffers.get("head.mlp.1.running_var").offset!;
  assert(after.student[variance] > 0.8 && after.student[variance] < 1.2);
});

for (const accumulate of [1, 2]) {
  onEachBackend(
    `an update that is not finite leaves running statistics alone, ${accumulate} part(s)`,
    async (backend) => {
      const { state, update, read } = await prepare(backend, accumulate);
      await update();
      const before = await read();
      const weights = [...await backend.read(state.student.flat)];
      await update(accumulate - 1); // the last part is the bad one: the ones before it moved statistics already
      assertEquals(await read(), before);
      assertEquals([...await backend.read(state.student.flat)], weights);
      await update();
      assertEquals(await read(), before, "frozen for good");
      assert(before.student.every(Number.isFinite));
    },
  );
}
