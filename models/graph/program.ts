// A program: operations in the order they run, and the tensors they name.
import { bytesPerElement, rootOf, size, type Tensor, tensor, view, VIEW_ALIGNMENT } from "./tensor.ts";
import type { Op, OpKind } from "./ops/mod.ts";

/** Collects operations. Model code and gradient rules append; backends only read. */
export class Program {
  /** Operations in the order they run. */
  readonly ops: Op[] = [];
  /** Ranges [first, end) of operations that {@linkcode segment} wrote. */
  readonly segments: (readonly [first: number, end: number])[] = [];
  /** Ids of the tensors that own gradients, as `differentiate` found them. */
  readonly gradients = new Set<number>();

  /**
   * An empty program; the name is for messages and profiles.
   *
   * @param ranks how many run it together, each on its share of the batch; they meet where operations need the whole of it
   */
  constructor(readonly name: string, readonly ranks: number = 1) {}

  /** Appends an operation and returns it. */
  emit<O extends Op>(op: O): O {
    this.ops.push(op);
    return op;
  }

  /** A tensor that lives within one run. */
  activation(name: string, shape: readonly number[]): Tensor {
    return tensor(name, shape, "activation");
  }

  /**
   * Writes a stretch of the forward pass, such as a block, that a gradient may compute again from what enters it instead of keeping
   * what is inside.
   */
  segment<T>(write: () => T): T {
    const first = this.ops.length;
    const made = write();
    this.segments.push([first, this.ops.length]);
    return made;
  }

  /** Appends another program's operations after this one's. */
  append(other: Program): this {
    this.ops.push(...other.ops);
    for (const id of other.gradients) this.gradients.add(id);
    return this;
  }

  /** Every tensor that owns a buffer, in order of first mention. */
  roots(): Tensor[] {
    const seen = new Map<number, Tensor>();
    for (const op of this.ops) {
      for (const t of tensorsOf(op)) {
        const root = rootOf(t);
        seen.set(root.id, root);
      }
    }
    return [...seen.values()];
  }

  /** One line an operation, for people and for tests. */
  toString(): string {
    const shown = (record: object) =>
      Object.entries(record as Record<string, Tensor | undefined>)
        .filter(([, t]) => t).map(([key, t]) => `${key}=${t!.name}[${t!.shape}]`).join(" ");
    return this.ops.map((op) => `${op.kind}: ${shown(op.out)} <- ${shown(op.in)} ${JSON.stringify(op.attrs)}`).join(
      "\n",
    );
  }
}

/** Tensors an operation reads. */
export function inputsOf(op: Op): Tensor[] {
  return (Object.values(op.in) as (Tensor | undefined)[]).filter((t) => t !== undefined);
}

/** Tensors an operation writes. */
export function outputsOf(op: Op): Tensor[] {
  return (Object.values(op.out) as (Tensor | undefined)[]).filter((t) => t !== undefined);
}

/** Reads and writes together. */
export function tensorsOf(op: Op): Tensor[] {
  return [...inputsOf(op), ...outputsOf(op)];
}

/** Rows and columns of a tensor seen as a matrix: the last extent is the column count. */
export function asMatrix(t: Tensor): [rows: number, columns: number] {
  const columns = t.shape.at(-1) ?? 1;
  return [columns === 0 ? 0 : size(t) / columns, columns];
}

/** Whether rows from `start` on can be viewed without copying (see VIEW_ALIGNMENT). */
export function canViewRows(t: Tensor, start: number): boolean {
  return start * asMatrix(t)[1] * bytesPerElement(t.dtype) % VIEW_ALIGNMENT === 0;
}

/** Rows `start … start + count` of a matrix-like tensor, without copying. Throws {RangeError} unless {@link canViewRows}. */
export function rows(t: Tensor, start: number, count: number): Tensor {
  const [, columns] = asMatrix(t);
  return view(t, `${t.name}[${start}:${start + count}]`, [count, columns], start * columns);
}

/** Throws {RangeError} unless `condition`; the message is built only then. */
export function require(condition: boolean, kind: OpKind | string, message: () => string): asserts condition {
  if (!condition) throw new RangeError(`${kind}: ${message()}`);
}
