// Operations in which the ranks that run a program together exchange what each has computed.
import { ALONE, type Communicator } from "../communicator.ts";
import { type Program, require } from "../program.ts";
import { size, type Tensor } from "../tensor.ts";
import { emitAddInto } from "./elementwise.ts";
import type { Op } from "./mod.ts";
import type { Operation, OpRule } from "./rule.ts";

/** y = Σ x over the ranks, in the order of ranks. `y` may be `x`. */
export type AllReduceOp = Operation<"allReduce", { x: Tensor }, { y: Tensor }, { ranks: number }>;

/** y [ranks, …] = the x of every rank. */
export type AllGatherOp = Operation<"allGather", { x: Tensor }, { y: Tensor }, { ranks: number }>;

/** An operation that a backend cannot do alone: the host carries its operand to the other ranks. */
export type CollectiveOp = AllReduceOp | AllGatherOp;

/** Sums over the ranks of the program, into `y`; default in place. */
export function emitAllReduce(p: Program, x: Tensor, y: Tensor = x): void {
  require(size(x) === size(y) && x.dtype === "f32", "allReduce", () => `${x.dtype}[${x.shape}] into [${y.shape}]`);
  p.emit<AllReduceOp>({ kind: "allReduce", in: { x }, out: { y }, attrs: { ranks: p.ranks } });
}

/** The tensor of every rank of the program, [ranks, …x]. */
export function allGather(p: Program, x: Tensor): Tensor {
  require(x.dtype === "f32", "allGather", () => `${x.name} is ${x.dtype}: only f32 is exchanged`);
  const y = p.activation(`allGather(${x.name})`, [p.ranks, ...x.shape]);
  p.emit<AllGatherOp>({ kind: "allGather", in: { x }, out: { y }, attrs: { ranks: p.ranks } });
  return y;
}

/** Whether the host must carry an operation out. */
export function isCollective(op: Op): op is CollectiveOp {
  return op.kind === "allReduce" || op.kind === "allGather";
}

/** Throws {RangeError} unless the program was written for as many ranks as there are. */
export function requireRanks(program: Program, { size }: Communicator = ALONE): void {
  for (const op of program.ops.filter(isCollective)) {
    require(
      op.attrs.ranks === size,
      op.kind,
      () =>
        `program "${program.name}" is written for ${op.attrs.ranks} ranks: compile it with a communicator of ${op.attrs.ranks}, not ${size}`,
    );
  }
}

/** Carries an operation out on copies. @param x is changed; @returns the elements of y */
export async function carryOut(op: CollectiveOp, x: Float32Array, communicator: Communicator): Promise<Float32Array> {
  if (op.kind === "allReduce") {
    await communicator.allReduce(x);
    return x;
  }
  const parts = await communicator.allGather(new Uint8Array(x.buffer, x.byteOffset, x.byteLength));
  const y = new Uint8Array(parts.length * x.byteLength);
  parts.forEach((part, rank) => y.set(part, rank * x.byteLength));
  return new Float32Array(y.buffer);
}

/** Collective operations that follow each other, with nothing to compute in between. */
export interface Meeting {
  /** Index of the first of them in the program: what comes before is computed by then. */
  readonly at: number;
  readonly ops: readonly CollectiveOp[];
}

/** Where a program has to stop for the other ranks. */
export function meetings(program: Program): Meeting[] {
  const found: { at: number; ops: CollectiveOp[] }[] = [];
  program.ops.forEach((op, i) => {
    if (!isCollective(op)) return;
    const last = found.at(-1);
    // What one of them makes, the next may only read after another stop.
    if (last && last.at + last.ops.length === i && !last.ops.some(({ out }) => out.y === op.in.x)) last.ops.push(op);
    else found.push({ at: i, ops: [op] });
  });
  return found;
}

/** Carries an operation out in float64. */
export async function referenceCollective(
  op: CollectiveOp,
  at: (t: Tensor) => Float64Array,
  communicator: Communicator,
): Promise<void> {
  const x = at(op.in.x), y = at(op.out.y);
  const parts = await communicator.allGather(new Uint8Array(x.slice().buffer));
  const values = parts.map((part) => new Float64Array(part.slice().buffer));
  if (op.kind === "allReduce") y.forEach((_, i) => y[i] = values.reduce((sum, part) => sum + part[i], 0));
  else values.forEach((part, rank) => y.set(part, rank * x.length));
}

export const allReduceRule: OpRule<AllReduceOp> = {
  reference(op, at) {
    at(op.out.y).set(at(op.in.x)); // of a world of one
  },
  gradient(op, g) {
    const dy = g.of(op.out.y);
    const dx = dy && g.target(op.in.x);
    if (!dx) return;
    const into = dx.accumulate ? g.program.activation(`allReduce(${dy.name})`, dy.shape) : dx.tensor;
    emitAllReduce(g.program, dy, into);
    if (dx.accumulate) emitAddInto(g.program, dx.tensor, into);
  },
};

export const allGatherRule: OpRule<AllGatherOp> = {
  reference(op, at) {
    at(op.out.y).set(at(op.in.x)); // of a world of one
  },
};
