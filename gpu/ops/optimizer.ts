// What changes parameters: norms per tensor, the update with its teacher, and the guard against NaN.
import { SEGMENT_COLUMNS } from "../../models/graph/ops/optimizer.ts";
import type { OpOf } from "../../models/graph/ops/mod.ts";
import { byteLength, size, type Tensor } from "../../models/graph/tensor.ts";
import type { Binding } from "../dispatch.ts";
import { kernel } from "../kernels/sources.ts";
import type { Lowering } from "../lowering.ts";

/** Elements of a segment that one workgroup handles. */
const BLOCK = 8192;
/** Segments must start at whole vec4s for the flat arenas to be read four floats at a time. */
const VECTOR = 4;

interface Blocks {
  /** (segment, first element / 4, elements, 0) a block. */
  readonly table: Uint32Array;
  /** (first block, blocks) a segment. */
  readonly ranges: Uint32Array;
  readonly count: number;
}

const cutTables = new WeakMap<Tensor, Blocks>();

/** Cuts every segment into blocks. Throws {TypeError} unless the segment table is a constant. */
function cutSegments(segments: Tensor): Blocks {
  const cached = cutTables.get(segments);
  if (cached) return cached;
  const data = segments.data;
  if (!data) throw new TypeError(`webgpu: segment table ${segments.name} must be a constant, made by segmentTable()`);
  const table: number[] = [], ranges: number[] = [];
  for (let s = 0; s < segments.shape[0]; s++) {
    const offset = data[s * SEGMENT_COLUMNS], length = data[s * SEGMENT_COLUMNS + 1];
    if (offset % VECTOR !== 0) {
      throw new RangeError(`webgpu: segment ${s} starts at element ${offset}, not a multiple of ${VECTOR}`);
    }
    const first = table.length / 4;
    for (let at = 0; at < length; at += BLOCK) {
      table.push(s, (offset + at) / VECTOR, Math.min(BLOCK, length - at), 0);
    }
    ranges.push(first, table.length / 4 - first);
  }
  const blocks = { table: Uint32Array.from(table), ranges: Uint32Array.from(ranges), count: table.length / 4 };
  cutTables.set(segments, blocks);
  return blocks;
}

function constantTable(data: Uint32Array): Binding {
  return { kind: "table", data };
}

const ROW_SUMS = { width: 4, with: ["rows"], constants: { LANES: 256 } } as const;

export function lowerGradientNorms(l: Lowering, op: OpOf<"gradientNorms">): void {
  const { grad, param, segments } = op.in;
  const { table, ranges, count } = cutSegments(segments);
  const partial = l.scratch(16 * count);
  const tensors = segments.shape[0];
  l.emit(
    kernel("gradient_norms", ROW_SUMS),
    [l.of(grad), l.of(param), constantTable(table), partial],
    { u: [count] },
    count,
  );
  l.emit(
    kernel("gradient_norms_total"),
    [partial, constantTable(ranges), l.of(op.out.norms)],
    { u: [tensors] },
    Math.ceil(tensors / 256),
  );
}

const METHODS = { adamw: 0, sgd: 1, lars: 2 };

export function lowerOptimizerUpdate(l: Lowering, op: OpOf<"optimizerUpdate">): void {
  const { param, grad, first, second, norms, groups, segments, teacher, teacherMomentum, frozen } = op.in;
  const { method, beta1, beta2, eps, momentum, eta } = op.attrs;
  const { table, count } = cutSegments(segments);
  const tensors = segments.shape[0];
  const coefficients = l.scratch(32 * tensors);
  l.emit(
    kernel("optimizer_prepare"),
    [l.of(norms), l.of(groups), l.of(segments), l.of(teacherMomentum), l.of(frozen), coefficients],
    { u: [tensors, Number(frozen !== undefined), Number(teacher !== undefined)], f: [eta] },
    Math.ceil(tensors / 256),
  );
  l.emit(
    kernel("optimizer_update", { width: 4, constants: { METHOD: METHODS[method] } }),
    [l.of(param), l.of(grad), l.of(first), l.of(second), l.of(teacher), coefficients, constantTable(table)],
    { u: [count, Number(teacher !== undefined)], f: [beta1, 1 - beta1, beta2, 1 - beta2, eps, momentum] },
    count,
  );
}

export function lowerCheckFinite(l: Lowering, op: OpOf<"checkFinite">): void {
  const count = size(op.in.x);
  const groups = Math.min(Math.ceil(count / 256), 1024);
  l.emit(
    kernel("check_finite", { with: ["math"] }),
    [l.of(op.in.x), l.of(op.out.flag)],
    { u: [count, groups * 256] },
    groups,
  );
}

export function lowerRecord(l: Lowering, op: OpOf<"record">): void {
  const { values, row } = op.in;
  const count = size(values);
  l.emit(
    kernel("record"),
    [l.of(values), l.of(row), l.of(op.out.ring)],
    { u: [count, Number(row.dtype === "f32"), byteLength(op.out.ring) / 4] },
    Math.ceil(count / 256),
  );
}
