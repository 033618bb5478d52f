// Programs small enough for the float64 reference that together run the operations training and evaluation are made of.

import { GROUP } from "../../models/graph/ops/optimizer.ts";
import { differentiate, dropUnreadOutputs } from "../../models/graph/autodiff.ts";
import { attentionProbs } from "../../models/graph/ops/attention.ts";
import { gelu } from "../../models/graph/ops/elementwise.ts";
import { linear } from "../../models/graph/ops/matmul.ts";
import { layerNorm } from "../../models/graph/ops/norm.ts";
import { topK } from "../../models/graph/ops/neighbours.ts";
import { patchify } from "../../models/graph/ops/tokens.ts";
import { Program } from "../../models/graph/program.ts";
import { ReferenceBackend } from "../../models/graph/reference.ts";
import { size, type Tensor, tensor } from "../../models/graph/tensor.ts";
import { type BackboneConfig, inputPatch } from "../../models/backbone.ts";
import { headConfig } from "../../models/dino_head.ts";
import { CounterRandom, STREAM } from "../../models/rng.ts";
import { resnetConfig } from "../../models/resnet.ts";
import { vitConfig } from "../../models/vit.ts";
import { xcitConfig } from "../../models/xcit.ts";
import { DinoState } from "../../dino/state.ts";
import { type CropSource, stepPrograms } from "../../dino/step.ts";

/** A program, and a reference that holds what its persistent tensors start from. */
export interface PreparedProgram {
  readonly program: Program;
  readonly reference: ReferenceBackend;
}

/** One DINO update with odd extents, once with each optimizer's, head's and backbone's variants, and what evaluation adds. */
export function* doctorPrograms(): Generator<PreparedProgram> {
  yield dinoUpdate("adamw", false);
  yield dinoUpdate("lars", true);
  yield dinoUpdate("sgd", false, resnetConfig({ block: "bottleneck", layers: [1, 1], basePlanes: 6 }));
  yield dinoUpdate("adamw", false, xcitConfig({ patchSize: 4, embedDim: 18, depth: 1, numHeads: 2 }));
  yield evaluation();
}

const VIT = vitConfig({ embedDim: 60, depth: 2, numHeads: 3, patchSize: 4, imageSize: 20 });

function dinoUpdate(
  method: DinoState["method"],
  batchNorm: boolean,
  backbone: BackboneConfig = VIT,
): PreparedProgram {
  const images = 3, globals = 2, views = 3;
  const head = headConfig({
    inDim: backbone.embedDim,
    outDim: 129,
    hiddenDim: batchNorm ? 71 : 72,
    bottleneckDim: 33,
    batchNorm,
    normLastLayer: false,
  });
  const state = new DinoState({ backbone, head }, method);
  const random = new CounterRandom(1, STREAM.evaluation);
  const source: CropSource = (p) => {
    const crops = (name: string, count: number, side: number) => ({
      patches: patchify(p, tensor(name, [count, 3, side, side], "input"), inputPatch(backbone)),
      images: count,
      height: side,
      width: side,
      dropPath: (_block: number, branch: number) => tensor(`drop path ${branch}`, [count], "input"),
    });
    const large = crops("global crops", globals * images, 20), small = crops("local crops", images, 13);
    const { dropPath: _, ...teacher } = large;
    return { teacher: [teacher], student: [large, small] };
  };
  const { parts: [program] } = stepPrograms(state, {
    images,
    accumulate: 1,
    globals,
    views,
    studentTemp: 0.1,
    centerMomentum: 0.9,
  }, source);
  const reference = new ReferenceBackend();
  fill(program, reference, random);
  reference.write(state.scalars.get("teacherTemp"), Float32Array.of(0.04));
  reference.write(state.scalars.get("teacherMomentum"), Float32Array.of(0.99));
  reference.write(state.scalars.get("ringRow"), Float32Array.of(2));
  reference.write(state.metrics.flat, new Float32Array(size(state.metrics.flat)));
  const groups = reference.at(state.groups), columns = state.groups.shape[1];
  for (let g = 0; g < state.groups.shape[0]; g++) {
    const row = groups.subarray(g * columns, (g + 1) * columns).fill(0);
    row[GROUP.lr] = 1e-3, row[GROUP.weightDecay] = g % 2 ? 0 : 0.04, row[GROUP.clip] = 0.3;
    row[GROUP.biasCorrection1] = 0.19, row[GROUP.biasCorrection2] = 0.002;
    row[GROUP.active] = 1, row[GROUP.adapt] = g % 2 ? 0 : 1;
    for (let i = 0; i < columns; i++) row[i] = Math.fround(row[i]);
  }
  return { program, reference };
}

/** Norm and MLP of a block under drop path, with their gradients: what products may compute as they read their operands. */
export function blockProgram(): Program {
  const p = new Program("half of a block");
  const images = 3, rows = images * 13, D = 36, hidden = 68;
  const x = tensor("x", [rows, D], "input"), dy = tensor("dy", [rows, D], "input");
  const scale = tensor("drop path", [images], "input"), dx = tensor("dx", [rows, D], "output");
  const parameters = [[D], [D], [hidden, D], [hidden], [D, hidden], [D]]
    .map((shape, i) => tensor(`parameter ${i}`, shape, "param"));
  const [weight, bias, w1, b1, w2, b2] = parameters;
  const wrt = parameters.map((t) => [t, tensor(`gradient of ${t.name}`, t.shape, "state")] as const);
  const hiddenRows = linear(p, layerNorm(p, x, weight, bias, 1e-6), w1, b1, { gelu: true });
  const y = linear(p, hiddenRows, w2, b2, { residual: x, rowScale: scale });
  differentiate(p, { seeds: [[y, dy]], wrt: [[x, dx], ...wrt] });
  dropUnreadOutputs(p);
  return p;
}

/** A program with operands for what it reads. */
export function prepared(program: Program): PreparedProgram {
  const reference = new ReferenceBackend();
  fill(program, reference, new CounterRandom(3, STREAM.evaluation));
  return { program, reference };
}

function evaluation(): PreparedProgram {
  const program = new Program("evaluation");
  const images = 2, tokens = 38, heads = 3, width = 20;
  const qkv = tensor("qkv", [images * tokens, 3 * heads * width], "input");
  attentionProbs(program, gelu(program, qkv), { images, tokens, heads, queries: 1, firstQuery: 0 });
  topK(program, tensor("scores", [7, 301], "input"), 20);
  const reference = new ReferenceBackend();
  fill(program, reference, new CounterRandom(2, STREAM.evaluation));
  return { program, reference };
}

/** Random numbers in (−½, ½); what must not be negative (second moments, variances) is made positive. */
function fill(program: Program, reference: ReferenceBackend, random: CounterRandom): void {
  const positive = (t: Tensor) => /second|Buffer|drop path/.test(t.name);
  for (const root of program.roots()) {
    if (root.role === "activation" || root.role === "constant") continue;
    const values = reference.at(root), above = positive(root);
    for (let i = 0; i < values.length; i++) {
      const value = random.uniform(-0.5, 0.5);
      values[i] = Math.fround(above ? Math.abs(value) + 0.01 : value);
    }
  }
}
