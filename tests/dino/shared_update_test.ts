// Updates of ranks that share a batch against those of one rank that has it all: everything an update changes.
import { packSegments } from "../../models/graph/arena.ts";
import type { Backend } from "../../models/graph/backend.ts";
import { ALONE, type Communicator } from "../../models/graph/communicator.ts";
import { size, type Tensor, tensor } from "../../models/graph/tensor.ts";
import { headConfig } from "../../models/dino_head.ts";
import type { NetworkConfig } from "../../models/dino_network.ts";
import { initialBuffer, initialParameters } from "../../models/init.ts";
import { resnetConfig } from "../../models/resnet.ts";
import { vitConfig } from "../../models/vit.ts";
import { metricsOfRow } from "../../dino/state.ts";
import { OptimizerSteps } from "../../dino/optimizer.ts";
import { DinoState } from "../../dino/state.ts";
import { distinctPrograms, stepPrograms } from "../../dino/step.ts";
import { assert, assertEquals } from "../assert.ts";
import { openBackendForTests } from "../backends.ts";
import { noise } from "../models/graph/op_cases.ts";
import { onEachKind, onRanks } from "./ranks.ts";

interface Case {
  readonly name: string;
  readonly network: NetworkConfig;
  readonly optimizer: "adamw" | "sgd" | "lars";
  /** Sides of global and local crops in pixels, and of the patches they are cut into. */
  readonly sides: readonly [number, number];
  readonly patch: number;
  /** Parts an update is computed in; each has batch statistics of its own. */
  readonly accumulate?: number;
}

/** Images of a batch; divides among 2 and 3 ranks. */
const BATCH = 6;
const UPDATES = 2;

const head = (inDim: number) =>
  headConfig({ inDim, outDim: 17, layers: 3, hiddenDim: 10, bottleneckDim: 5, batchNorm: true });
const small = { depth: 1, numHeads: 2, mlpRatio: 2, imageSize: 8, patchSize: 4 };

const CASES: readonly Case[] = [
  {
    name: "a ViT with batch norms in its head, AdamW",
    network: { backbone: vitConfig({ embedDim: 12, ...small }), head: head(12) },
    optimizer: "adamw",
    sides: [8, 4],
    patch: 4,
  },
  {
    name: "a ResNet, SGD",
    network: { backbone: resnetConfig({ block: "bottleneck", layers: [1, 1], basePlanes: 4 }), head: head(32) },
    optimizer: "sgd",
    sides: [11, 7],
    patch: 1,
  },
  {
    name: "a ResNet in two parts, LARS",
    network: { backbone: resnetConfig({ block: "basic", layers: [1], basePlanes: 6 }), head: head(6) },
    optimizer: "lars",
    sides: [9, 6],
    patch: 1,
    accumulate: 2,
  },
];

/** Makes updates with the rank's share of each batch; returns what they changed, by name. */
async function updates(c: Case, backend: Backend, communicator: Communicator): Promise<Map<string, Float64Array>> {
  const { accumulate = 1, patch, sides } = c, ranks = communicator.size;
  const whole = BATCH, images = whole / ranks; // of a part
  const state = new DinoState(c.network, c.optimizer);
  const views = [2, 3]; // global and local
  const perImage = sides.map((side) => (side / patch) ** 2 * patch ** 2 * 3);
  const crops = sides.map((side, g) =>
    tensor(`crops ${side}`, [views[g] * images * (side / patch) ** 2, patch ** 2 * 3], "input")
  );
  const group = (g: number) => ({
    patches: crops[g],
    images: views[g] * images,
    height: sides[g],
    width: sides[g],
  });
  const programs = stepPrograms(state, {
    images,
    accumulate,
    ranks,
    globals: 2,
    views: 5,
    studentTemp: 0.1,
    centerMomentum: 0.9,
    eps: 0.1, // gradients that are zero but for rounding, as of biases before a batch norm, would be divided by themselves
  }, () => ({ teacher: [group(0)], student: [group(0), group(1)] }));
  const values = initialParameters(c.network, 1, 0.2); // larger than usual, so that rounding is small beside what varies
  for (const arena of [state.student, state.teacher]) {
    backend.write(arena.flat, packSegments(arena.segments, ({ name }) => values.get(name)!));
  }
  for (const arena of [state.studentBuffers, state.teacherBuffers]) {
    const fill = ({ name, length }: { name: string; length: number }) =>
      new Float32Array(length).fill(initialBuffer(name));
    backend.write(arena.flat, packSegments(arena.segments, fill));
  }
  const write = (t: Tensor, value: number) => backend.write(t, Float32Array.of(value));
  write(state.scalars.get("teacherTemp"), 0.05);
  write(state.scalars.get("teacherMomentum"), 0.9);
  const optimizer = new OptimizerSteps({ optimizer: c.optimizer, adamBeta1: 0.9, adamBeta2: 0.999, clipGrad: 0.5 });
  const compiled = new Map(
    await Promise.all(
      distinctPrograms(programs).map(async (p) => [p, await backend.compile(p, communicator)] as const),
    ),
  );
  const random = noise(5);
  for (let step = 0; step < UPDATES; step++) {
    write(state.scalars.get("ringRow"), step);
    backend.write(
      state.groups,
      optimizer.next({ lr: 0.01, weightDecay: 0.04, momentum: 0.9, teacherTemp: 0.05, lastLayerFrozen: false }),
    );
    for (const part of programs.parts) {
      crops.forEach((t, g) => {
        const all = Float32Array.from({ length: views[g] * whole * perImage[g] }, random);
        const own = new Float32Array(size(t)), share = images * perImage[g];
        for (let view = 0; view < views[g]; view++) { // view-major, in a share as in the whole
          const start = (view * whole + communicator.rank * images) * perImage[g];
          own.set(all.subarray(start, start + share), view * share);
        }
        backend.write(t, own);
      });
      await compiled.get(part)!.run();
    }
    if (programs.update) await compiled.get(programs.update)!.run();
  }
  const changed = new Map<string, Float64Array>();
  const arenas = { student: state.student, teacher: state.teacher, first: state.first, second: state.second };
  for (const [name, arena] of Object.entries({ ...arenas, buffers: state.studentBuffers, of: state.teacherBuffers })) {
    if (arena) changed.set(name, Float64Array.from(await backend.read(arena.flat)));
  }
  changed.set("center", Float64Array.from(await backend.read(state.center)));
  const ring = await backend.read(state.ring);
  const rows = [...Array(UPDATES).keys()].map((row) => metricsOfRow(state, ring, row));
  changed.set("loss", Float64Array.from(rows, ({ loss }) => loss));
  changed.set("entropy", Float64Array.from(rows, ({ teacherEntropy }) => teacherEntropy));
  assertEquals(rows.map(({ frozen }) => frozen), Array(UPDATES).fill(0));
  return changed;
}

/**
 * Largest difference over the largest value of a tensor. Sums of hundreds of float32 terms are taken in another order, and two
 * updates with batch norms of six images in between make some ten times of their rounding. Without synchronisation it is 1e-2.
 */
const TOLERANCE = 1e-4;

for (const c of CASES) {
  onEachKind(`an update that ranks share is that of one rank with the whole batch: ${c.name}`, async (kind) => {
    const alone = await openBackendForTests(kind, { threads: 2 });
    const whole = await updates(c, alone, ALONE);
    await alone.close();
    for (const count of kind === "webgpu" ? [2] : [2, 3]) {
      const shares = await onRanks(kind, count, (backend, communicator) => updates(c, backend, communicator));
      for (const [name, truth] of whole) {
        const largest = truth.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
        for (const share of shares) assertEquals(share.get(name), shares[0].get(name), `${name}: ranks differ`);
        const got = shares[0].get(name)!;
        const worst = truth.reduce((most, value, i) => Math.max(most, Math.abs(got[i] - value)), 0) / largest;
        assert(worst <= TOLERANCE, `${name} of ${count} ranks is off by ${worst}`);
      }
    }
  });
}
