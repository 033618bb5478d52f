// One flat buffer that holds many tensors, so that an optimizer walks a single array.
import { type Role, type Tensor, tensor, view, VIEW_ALIGNMENT } from "./tensor.ts";

/**
 * Arena members start at multiples of this many elements (256 bytes): WebGPU binds storage at that
 * alignment, and it makes each optimizer work group belong to one tensor.
 */
export const ARENA_ALIGNMENT = VIEW_ALIGNMENT / 4;

/** A member of an arena: where its elements lie. */
export interface Segment {
  /** Such as `backbone.blocks.0.attn.qkv.weight`. */
  readonly name: string;
  /** Extents of the member. */
  readonly shape: readonly number[];
  /** First element. */
  readonly offset: number;
  /** Elements, without the padding that follows. */
  readonly length: number;
}

/** Places tensors of the given shapes one after another, each aligned to {@link ARENA_ALIGNMENT}. */
export function layoutSegments(shapes: Iterable<readonly [string, readonly number[]]>): Segment[] {
  const segments: Segment[] = [];
  let offset = 0;
  for (const [name, shape] of shapes) {
    const length = shape.reduce((a, b) => a * b, 1);
    segments.push({ name, shape, offset, length });
    offset += Math.ceil(length / ARENA_ALIGNMENT) * ARENA_ALIGNMENT;
  }
  return segments;
}

/** Elements an arena with these segments takes, padding included. */
export function arenaLength(segments: readonly Segment[]): number {
  const last = segments.at(-1);
  return last ? last.offset + Math.ceil(last.length / ARENA_ALIGNMENT) * ARENA_ALIGNMENT : 0;
}

/** A flat f32 buffer and its members by name. Padding stays zero. */
export class Arena {
  /** The whole buffer, [elements with padding]. */
  readonly flat: Tensor;
  /** Views of the members by name. */
  readonly tensors: ReadonlyMap<string, Tensor>;

  /** Lays the members out as `segments` says; they are called `name.member`. */
  constructor(name: string, readonly segments: readonly Segment[], role: Role = "param") {
    this.flat = tensor(name, [arenaLength(segments)], role);
    this.tensors = new Map(
      segments.map((s) => [s.name, view(this.flat, `${name}.${s.name}`, s.shape, s.offset)]),
    );
  }

  /** The member called `name`. Throws {RangeError} when there is none. */
  get(name: string): Tensor {
    const found = this.tensors.get(name);
    if (!found) throw new RangeError(`arena ${this.flat.name}: no tensor "${name}" among ${this.tensors.size}`);
    return found;
  }

  /** Elements without padding. */
  get parameterCount(): number {
    return this.segments.reduce((sum, s) => sum + s.length, 0);
  }
}

/** Copies named host arrays into one flat array laid out like `segments`. */
export function packSegments(
  segments: readonly Segment[],
  values: (segment: Segment) => ArrayLike<number>,
): Float32Array {
  const flat = new Float32Array(arenaLength(segments));
  for (const segment of segments) {
    const source = values(segment);
    if (source.length !== segment.length) {
      throw new RangeError(`${segment.name}: ${source.length} values, [${segment.shape}] takes ${segment.length}`);
    }
    flat.set(source, segment.offset);
  }
  return flat;
}

/** True when `a` and `b` have the same extents. */
export function sameShape(a: Pick<Tensor, "shape">, b: Pick<Tensor, "shape">): boolean {
  return a.shape.length === b.shape.length && a.shape.every((extent, i) => extent === b.shape[i]);
}
