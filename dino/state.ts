// Everything a DINO run changes: two networks, gradients, moments, the center, and the scalars the host writes.
import { Arena, layoutSegments, packSegments } from "../models/graph/arena.ts";
import type { Backend } from "../models/graph/backend.ts";
import { GROUP_COLUMNS, NORM_COLUMNS, segmentTable } from "../models/graph/ops/optimizer.ts";
import { type Tensor, tensor } from "../models/graph/tensor.ts";
import { networkBufferShapes, type NetworkConfig, networkShapes } from "../models/dino_network.ts";
import type { Parameters } from "../models/vit.ts";
import { PARAMETER_GROUPS, parameterGroup } from "./optimizer.ts";

/** Rows of metrics kept on the device before the host must read them. */
export const RING_ROWS = 64;

/** What a step records, in the order of the ring's columns. */
export const METRICS = ["loss", "teacherEntropy", "frozen"] as const;

/** One of {@link METRICS}. */
export type Metric = (typeof METRICS)[number];

/** What changes from update to update. */
export interface UpdateScalars {
  /** Rows of parameter groups, [groups, 8]. */
  readonly groups: Float32Array;
  /** Of the teacher's softmax. */
  readonly teacherTemp: number;
  /** Of the teacher's average. */
  readonly teacherMomentum: number;
  /** Where in the ring the update's metrics go. */
  readonly ringRow: number;
}

type ScalarName = Exclude<keyof UpdateScalars, "groups">;

/** The tensors of a run. Arenas of one layout hold, member by member, the same parameter. */
export class DinoState {
  /** Weights that gradients train. */
  readonly student: Arena;
  /** Their moving average. */
  readonly teacher: Arena;
  /** Gradients of the student's weights. */
  readonly gradients: Arena;
  /** AdamW's first moment, or the momentum buffer of SGD and LARS. */
  readonly first: Arena;
  /** AdamW's second moment. */
  readonly second?: Arena;
  /** Running statistics of batch norms; empty without them. */
  readonly studentBuffers: Arena;
  /** The teacher's. */
  readonly teacherBuffers: Arena;
  /** Where an update moves {@link studentBuffers}; they follow only if it turns out to be finite. */
  readonly studentMoving: Arena;
  /** The same of {@link teacherBuffers}. */
  readonly teacherMoving: Arena;
  /** [K], subtracted from the teacher's logits. */
  readonly center: Tensor;
  /** [K], sum of the teacher's logits over the rows of one update. */
  readonly centerSum: Tensor;
  /** Parameter groups of the optimizer, [groups, 8], written by the host before every update. */
  readonly groups: Tensor;
  /** Where each parameter lies in the arenas and which group rules it. */
  readonly segments: Tensor;
  /** Σg², Σp², Σgp of each parameter. */
  readonly norms: Tensor;
  /** What {@link writeScalars} writes: {@link groups}, and teacherTemp, teacherMomentum, ringRow, each [1]. */
  readonly scalars: Arena;
  /** {@link METRICS} of the current update, each [1]. `frozen` becomes 1 at the first non-finite loss or gradient and stays. */
  readonly metrics: Arena;
  /** Metrics of the last {@link RING_ROWS} updates. */
  readonly ring: Tensor;

  /** Names all tensors of a run; the optimizer decides which moments there are. */
  constructor(readonly network: NetworkConfig, readonly method: "adamw" | "sgd" | "lars" = "adamw") {
    const segments = layoutSegments(networkShapes(network));
    const buffers = layoutSegments(networkBufferShapes(network));
    const K = network.head.outDim;
    this.student = new Arena("student", segments);
    this.teacher = new Arena("teacher", segments);
    this.gradients = new Arena("gradient", segments, "state");
    this.first = new Arena("first", segments, "state");
    this.second = method === "adamw" ? new Arena("second", segments, "state") : undefined;
    this.studentBuffers = new Arena("studentBuffer", buffers, "state");
    this.teacherBuffers = new Arena("teacherBuffer", buffers, "state");
    this.studentMoving = new Arena("studentMoving", buffers, "state");
    this.teacherMoving = new Arena("teacherMoving", buffers, "state");
    this.center = tensor("center", [K], "state");
    this.centerSum = tensor("centerSum", [K], "state");
    this.segments = segmentTable(segments, (s) => parameterGroup(s.name, s.shape, network.head));
    this.norms = tensor("norms", [segments.length, NORM_COLUMNS], "state");
    const scalar = (name: string) => [name, [1]] as const;
    this.scalars = new Arena(
      "scalar",
      layoutSegments([
        ["groups", [PARAMETER_GROUPS, GROUP_COLUMNS]],
        ...["teacherTemp", "teacherMomentum", "ringRow"].map(scalar),
      ]),
      "input",
    );
    this.groups = this.scalars.get("groups");
    this.metrics = new Arena("metric", layoutSegments(METRICS.map(scalar)), "state");
    this.ring = tensor("ring", [RING_ROWS, ...this.metrics.flat.shape], "state");
  }

  /** Tells a device everything that the host decides anew for an update, in one write. */
  writeScalars(backend: Pick<Backend, "write">, values: UpdateScalars): void {
    const { segments, flat } = this.scalars;
    backend.write(
      flat,
      packSegments(segments, ({ name }) => name === "groups" ? values.groups : [values[name as ScalarName]]),
    );
  }

  /** Frees everything on a device; nothing of the run can be read there afterwards. */
  dispose(backend: Pick<Backend, "free">): void {
    const arenas = Object.values(this).filter((value) => value instanceof Arena);
    backend.free(
      ...arenas.map(({ flat }) => flat),
      ...[this.center, this.centerSum, this.segments, this.norms, this.ring],
    );
  }

  /** Parameters and buffers of the student by name. */
  readonly studentParameters: Parameters = (name) => this.studentBuffers.tensors.get(name) ?? this.student.get(name);

  /** Parameters and buffers of the teacher by name. */
  readonly teacherParameters: Parameters = (name) => this.teacherBuffers.tensors.get(name) ?? this.teacher.get(name);

  /** What the student's passes of an update read and move. */
  readonly studentInUpdate: Parameters = (name) => this.studentMoving.tensors.get(name) ?? this.student.get(name);

  /** What the teacher's do. */
  readonly teacherInUpdate: Parameters = (name) => this.teacherMoving.tensors.get(name) ?? this.teacher.get(name);

  /** Running statistics and where an update moves them; none without batch norm. */
  runningStatistics(): { kept: Tensor; moving: Tensor }[] {
    if (this.studentBuffers.segments.length === 0) return [];
    return [
      { kept: this.studentBuffers.flat, moving: this.studentMoving.flat },
      { kept: this.teacherBuffers.flat, moving: this.teacherMoving.flat },
    ];
  }

  /** Pairs (parameter, gradient buffer) of everything that is trained. */
  trained(): [Tensor, Tensor][] {
    const frozen = this.network.head.normLastLayer ? "head.last_layer.weight_g" : "";
    return this.student.segments
      .filter(({ name }) => name !== frozen)
      .map(({ name }) => [this.student.get(name), this.gradients.get(name)]);
  }
}

/** Metrics of one update from a copy of the ring. */
export function metricsOfRow(state: DinoState, ring: ArrayLike<number>, row: number): Record<Metric, number> {
  const width = state.metrics.flat.shape[0];
  const entries = METRICS.map((name, i) => [name, ring[row * width + state.metrics.segments[i].offset]]);
  return Object.fromEntries(entries) as Record<Metric, number>;
}
