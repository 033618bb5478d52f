// Kinds train_steps, optimizers and schedules.
import { Arena, layoutSegments, packSegments } from "../../../models/graph/arena.ts";
import type { Backend } from "../../../models/graph/backend.ts";
import { patchify } from "../../../models/graph/ops/tokens.ts";
import {
  gradientNorms,
  GROUP_COLUMNS,
  NORM_COLUMNS,
  optimizerUpdate,
  segmentTable,
} from "../../../models/graph/ops/optimizer.ts";
import { Program } from "../../../models/graph/program.ts";
import { tensor } from "../../../models/graph/tensor.ts";
import { headConfig } from "../../../models/dino_head.ts";
import { OptimizerSteps } from "../../../dino/optimizer.ts";
import { cosineAt, scaleLr, scheduledValues } from "../../../dino/schedule.ts";
import { DinoState, metricsOfRow, RING_ROWS } from "../../../dino/state.ts";
import { stepPrograms } from "../../../dino/step.ts";
import type { GoldenCase } from "../golden_case.ts";
import { backboneOf } from "./vit.ts";

export async function trainSteps(golden: GoldenCase, backend: Backend) {
  const { backbone: b, head: h, train: t, optimizer: o, n_local, global_size, local_size } = golden.config;
  const backbone = backboneOf(b);
  const head = headConfig({
    inDim: backbone.embedDim,
    outDim: h.out_dim,
    layers: h.nlayers,
    hiddenDim: h.hidden_dim,
    bottleneckDim: h.bottleneck_dim,
    batchNorm: h.use_bn,
    normLastLayer: h.norm_last_layer,
  });
  const state = new DinoState({ backbone, head }, o.name);
  const load = (arena: Arena, prefix: string) =>
    backend.write(arena.flat, packSegments(arena.segments, (s) => golden.floats(prefix + s.name)));
  load(state.student, "student0.");
  load(state.teacher, "teacher0.");
  backend.write(state.center, golden.floats("center0"));

  const B = t.batch_size, C = backbone.inChannels;
  const globals = golden.shape("step0.global")[0], views = globals + n_local;
  const globalImages = tensor("global", [globals * B, C, global_size, global_size], "input");
  const localImages = tensor("local", [n_local * B, C, local_size, local_size], "input");
  const { parts } = stepPrograms(state, {
    images: B,
    accumulate: 1,
    globals,
    views,
    studentTemp: t.student_temp,
    centerMomentum: t.center_momentum,
    beta1: o.betas[0],
    beta2: o.betas[1],
    eps: o.eps,
  }, (p) => {
    const group = (image: typeof globalImages) => ({
      patches: patchify(p, image, backbone.patchSize),
      images: image.shape[0],
      height: image.shape[2],
      width: image.shape[3],
    });
    const teacher = [group(globalImages)];
    return { teacher, student: n_local ? [...teacher, group(localImages)] : teacher };
  });
  const schedule = {
    epochs: t.epochs,
    batchSize: t.batch_size,
    lr: t.lr,
    lrBatch: 256,
    minLr: t.min_lr,
    warmupEpochs: t.warmup_epochs,
    weightDecay: t.weight_decay,
    weightDecayEnd: t.weight_decay_end,
    momentumTeacher: t.momentum_teacher,
    momentumTeacherEnd: 1,
    warmupTeacherTemp: t.warmup_teacher_temp,
    teacherTemp: t.teacher_temp,
    warmupTeacherTempEpochs: t.warmup_teacher_temp_epochs,
    freezeLastLayer: t.freeze_last_layer,
  };
  const steps = new OptimizerSteps({
    optimizer: o.name,
    adamBeta1: o.betas[0],
    adamBeta2: o.betas[1],
    clipGrad: t.clip_grad,
  });
  const executable = await backend.compile(parts[0]);
  const clipped: number[] = [];
  for (let i = 0; i < t.steps; i++) {
    const values = scheduledValues(schedule, t.iters_per_epoch, i);
    backend.write(globalImages, golden.floats(`step${i}.global`));
    if (n_local) backend.write(localImages, golden.floats(`step${i}.local`));
    backend.write(state.groups, steps.next(values));
    backend.write(state.scalars.get("teacherTemp"), Float32Array.of(values.teacherTemp));
    backend.write(state.scalars.get("teacherMomentum"), Float32Array.of(values.momentum));
    backend.write(state.scalars.get("ringRow"), Float32Array.of(i % RING_ROWS));
    await executable.run();
    const metrics = metricsOfRow(state, await backend.read(state.ring) as Float32Array, i % RING_ROWS);
    golden.compareScalar(`step${i}.loss`, metrics.loss);
    golden.compareScalar(`step${i}.teacher_entropy`, metrics.teacherEntropy);
    golden.compareScalar(`step${i}.kl`, metrics.loss - metrics.teacherEntropy);
    golden.compareScalar(`step${i}.lr`, values.lr);
    golden.compareScalar(`step${i}.wd`, values.weightDecay);
    golden.compareScalar(`step${i}.momentum`, values.momentum);
    golden.compareScalar(`step${i}.teacher_temp`, values.teacherTemp);
    golden.compare(`step${i}.center_after`, await backend.read(state.center));
    const table = await backend.read(state.norms);
    const norms = golden.config.grad_norm_order.map((name: string) =>
      Math.sqrt(table[state.student.segments.findIndex((s) => s.name === name) * NORM_COLUMNS])
    );
    golden.compare(`step${i}.grad_norms`, norms);
    clipped.push(norms.filter((norm: number) => t.clip_grad > 0 && norm > t.clip_grad).length);
  }
  if ("n_clipped" in golden.expected) golden.compareScalar("n_clipped", clipped);
  golden.compare("center_final", await backend.read(state.center));
  const results: [string, Arena][] = [["student_final.", state.student], ["teacher_final.", state.teacher]];
  results.push(["adam_m.", state.first], ["adam_v.", state.second!]);
  for (const [prefix, arena] of results) {
    for (const { name } of arena.segments) {
      if (golden.has(prefix + name)) {
        golden.compare(prefix + name, await backend.read(arena.get(name)), { isolated: true });
      }
    }
  }
  if ("adam_step" in golden.expected) {
    const table = state.segments.data!;
    const groups = state.student.segments.map((s, i) => [s.name, steps.steps[table[4 * i + 2]]] as const);
    const wanted = golden.expected.adam_step.value as Record<string, number>;
    golden.compareScalar("adam_step", Object.fromEntries(groups.filter(([name]) => name in wanted)));
  }
}

export async function optimizers(golden: GoldenCase, backend: Backend) {
  const c = golden.config;
  const shapes = Object.entries(c.shapes as Record<string, number[]>);
  const segments = layoutSegments(shapes);
  // One group a tensor: each counts its own updates.
  const groupTable = tensor("groups", [segments.length, GROUP_COLUMNS], "input");
  const table = segmentTable(segments, (s) => segments.findIndex((t) => t.name === s.name));
  for (const method of ["adamw", "sgd", "lars"] as const) {
    const [param, grad] = [new Arena("param", segments), new Arena("grad", segments, "input")];
    const [first, second] = [new Arena("first", segments, "state"), new Arena("second", segments, "state")];
    const norms = tensor("norms", [segments.length, NORM_COLUMNS], "state");
    backend.write(param.flat, packSegments(segments, (s) => golden.floats(`param.${s.name}`)));
    const p = new Program(method);
    gradientNorms(p, grad.flat, param.flat, table, norms);
    optimizerUpdate(p, {
      param: param.flat,
      grad: grad.flat,
      first: first.flat,
      second: method === "adamw" ? second.flat : undefined,
      norms,
      groups: groupTable,
      segments: table,
    }, {
      method,
      beta1: c.adamw.betas[0],
      beta2: c.adamw.betas[1],
      eps: c.adamw.eps,
      momentum: c[method].momentum ?? 0,
      eta: c.lars.eta,
    });
    const executable = await backend.compile(p);
    const updates = segments.map(() => 0);
    for (let step = 0; step < c.steps; step++) {
      const rows = new Float32Array(segments.length * GROUP_COLUMNS);
      segments.forEach(({ name, shape }, i) => {
        const present = !(c.missing_gradient[name] ?? []).includes(step);
        if (present) updates[i]++;
        const t = Math.max(updates[i], 1);
        const decayed = c.decayed.includes(name);
        const [b1, b2] = c.adamw.betas;
        const row = [
          c.lr[step],
          decayed ? c.wd[step] : 0,
          1 - b1 ** t,
          1 - b2 ** t,
          0,
          Number(present),
          Number(t === 1),
        ];
        rows.set([...row, Number(shape.length !== 1)], i * GROUP_COLUMNS);
      });
      backend.write(groupTable, rows);
      backend.write(grad.flat, packSegments(segments, (s) => golden.floats(`step${step}.grad.${s.name}`)));
      await executable.run();
      for (const { name } of segments) {
        golden.compare(`output.${method}.step${step}.${name}`, await backend.read(param.get(name)));
      }
    }
    executable.dispose();
  }
}

export function schedules(golden: GoldenCase): Promise<void> {
  for (const [name, s] of Object.entries(golden.config.schedules as Record<string, Record<string, number>>)) {
    const total = s.epochs * s.iters_per_epoch;
    const options = {
      base: s.base,
      final: s.final,
      total,
      warmup: (s.warmup_epochs ?? 0) * s.iters_per_epoch,
      start: s.start_warmup_value ?? 0,
    };
    golden.compare(`output.${name}`, Array.from({ length: total }, (_, step) => cosineAt(step, options)));
  }
  for (const [i, { lr, batch_per_device, world_size }] of golden.config.lr_scaling.entries()) {
    golden.compareScalar(`scaled_lr.${i}`, scaleLr(lr, batch_per_device * world_size));
  }
  return Promise.resolve();
}
