// What changes parameters: norms per tensor, the update with its teacher, and the guard against NaN.
import { SEGMENT_COLUMNS } from "../../models/graph/ops/optimizer.ts";
import type { OpOf } from "../../models/graph/ops/mod.ts";
import { byteLength, size, type Tensor, view } from "../../models/graph/tensor.ts";
import type { Binding } from "../dispatch.ts";
import { kernel } from "../kernels/sources.ts";
import type { Lowering } from "../lowering.ts";

/** Elements of a segment that one workgroup handles. */
const BLOCK = 8192;
/** Segments must start at whole vec4s for the flat arenas to be read four floats at a time. */
const VECTOR = 4;

/** Neighbouring blocks, and the elements of the arenas that they lie in. */
interface Stretch {
  /** (segment, first element of the stretch / 4, elements, 0) a block. */
  readonly table: Uint32Array;
  readonly firstBlock: number;
  readonly count: number;
  readonly start: number;
  readonly end: number;
}

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

const stretches = new WeakMap<Blocks, Map<number, readonly Stretch[]>>();

/** The blocks in stretches of at most `limit` bytes of an arena: one where the device binds all of it. */
function inStretches(blocks: Blocks, limit: number): readonly Stretch[] {
  const known = stretches.get(blocks) ?? new Map<number, readonly Stretch[]>();
  stretches.set(blocks, known);
  let made = known.get(limit);
  if (!made) known.set(limit, made = [...cutStretches(blocks, Math.floor(limit / 4))]);
  return made;
}

function* cutStretches({ table, count }: Blocks, most: number): Generator<Stretch> {
  const startOf = (b: number) => table[4 * b + 1] * VECTOR;
  const endOf = (b: number) => startOf(b) + Math.ceil(table[4 * b + 2] / VECTOR) * VECTOR;
  for (let first = 0, last = 0; first < count; first = last) {
    const start = startOf(first);
    for (last = first + 1; last < count && endOf(last) - start <= most;) last++;
    const part = table.slice(4 * first, 4 * last);
    for (let i = 1; i < part.length; i += 4) part[i] -= start / VECTOR;
    yield { table: part, firstBlock: first, count: last - first, start, end: endOf(last - 1) };
  }
}

/** The part of an arena that a stretch lies in. */
function partOf(l: Lowering, arena: Tensor | undefined, { start, end }: Stretch): Binding {
  return l.of(arena && (end - start === size(arena) ? arena : view(arena, arena.name, [end - start], start)));
}

function constantTable(data: Uint32Array): Binding {
  return { kind: "table", data };
}

const ROW_SUMS = { width: 4, with: ["rows"], constants: { LANES: 256 } } as const;

export function lowerGradientNorms(l: Lowering, op: OpOf<"gradientNorms">): void {
  const { grad, param, segments } = op.in;
  const blocks = cutSegments(segments), { ranges, count } = blocks;
  const partial = l.scratch(16 * count);
  const tensors = segments.shape[0];
  for (const stretch of inStretches(blocks, l.limits.bindingBytes)) {
    l.emit(
      kernel("gradient_norms", ROW_SUMS),
      [partOf(l, grad, stretch), partOf(l, param, stretch), constantTable(stretch.table), partial],
      { u: [stretch.count, stretch.firstBlock] },
      stretch.count,
    );
  }
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
  const blocks = cutSegments(segments);
  const tensors = segments.shape[0];
  const coefficients = l.scratch(32 * tensors);
  l.emit(
    kernel("optimizer_prepare"),
    [l.of(norms), l.of(groups), l.of(segments), l.of(teacherMomentum), l.of(frozen), coefficients],
    { u: [tensors, Number(frozen !== undefined), Number(teacher !== undefined)], f: [eta] },
    Math.ceil(tensors / 256),
  );
  for (const stretch of inStretches(blocks, l.limits.bindingBytes)) {
    const arenas = [param, grad, first, second, teacher].map((arena) => partOf(l, arena, stretch));
    l.emit(
      kernel("optimizer_update", { width: 4, constants: { METHOD: METHODS[method] } }),
      [...arenas, coefficients, constantTable(stretch.table)],
      { u: [stretch.count, Number(teacher !== undefined)], f: [beta1, 1 - beta1, beta2, 1 - beta2, eps, momentum] },
      stretch.count,
    );
  }
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
