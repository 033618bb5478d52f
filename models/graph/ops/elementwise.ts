// Operations that touch each element once, and the sums over rows.
import { asMatrix, type Program, require } from "../program.ts";
import { size, type Tensor } from "../tensor.ts";
import type { GradientTarget, Operation, OpRule } from "./rule.ts";
import { gelu as geluOf, geluDerivative } from "./special.ts";

/** y = a + b, same shapes. `y` may be `a`'s memory. */
export type AddOp = Operation<"add", { a: Tensor; b: Tensor }, { y: Tensor }, Record<never, never>>;

/** y = x. */
export type CopyOp = Operation<"copy", { x: Tensor }, { y: Tensor }, Record<never, never>>;

/** y = GELU(x) (erf form). */
export type GeluOp = Operation<"gelu", { x: Tensor }, { y: Tensor }, Record<never, never>>;

/** dx = dy · GELU′(x). `dx` may be `dy`'s memory. */
export type GeluBackwardOp = Operation<
  "geluBackward",
  { dy: Tensor; x: Tensor },
  { dx: Tensor },
  { accumulate: boolean }
>;

/** y[r, :] = scale[r / (rows / groups)] · x[r, :]; scale [groups]. `y` may be `x`'s memory. */
export type ScaleRowsOp = Operation<"scaleRows", { x: Tensor; scale: Tensor }, { y: Tensor }, Record<never, never>>;

/** y[n] (+)= Σᵣ x[r, n]; with scale [groups] y[n] (+)= Σᵣ scale[r / (rows / groups)]·x[r, n]. */
export type ColumnSumOp = Operation<"columnSum", { x: Tensor; scale?: Tensor }, { y: Tensor }, { accumulate: boolean }>;

/** y[0] (+)= scale · Σ x. */
export type SumOp = Operation<"sum", { x: Tensor }, { y: Tensor }, { scale: number; accumulate: boolean }>;

/** a + b. */
export function add(p: Program, a: Tensor, b: Tensor): Tensor {
  require(size(a) === size(b), "add", () => `[${a.shape}] + [${b.shape}]`);
  const y = p.activation(`${a.name}+${b.name}`, a.shape);
  p.emit<AddOp>({ kind: "add", in: { a, b }, out: { y }, attrs: {} });
  return y;
}

/** Adds `b` into `a`. */
export function emitAddInto(p: Program, a: Tensor, b: Tensor): void {
  p.emit<AddOp>({ kind: "add", in: { a, b }, out: { y: a }, attrs: {} });
}

/** Copies `x` to `y`. */
export function emitCopy(p: Program, x: Tensor, y: Tensor): void {
  require(size(x) === size(y) && x.dtype === y.dtype, "copy", () => `${x.dtype}[${x.shape}] to ${y.dtype}[${y.shape}]`);
  p.emit<CopyOp>({ kind: "copy", in: { x }, out: { y }, attrs: {} });
}

/** GELU of every element. */
export function gelu(p: Program, x: Tensor): Tensor {
  const y = p.activation(`gelu(${x.name})`, x.shape);
  p.emit<GeluOp>({ kind: "gelu", in: { x }, out: { y }, attrs: {} });
  return y;
}

/** dy·GELU′(x), into `into` (which may be `dy`) or a new tensor. */
export function emitGeluBackward(p: Program, dy: Tensor, x: Tensor, into?: Tensor): Tensor {
  const dx = into ?? p.activation(`d(${x.name})`, x.shape);
  p.emit<GeluBackwardOp>({ kind: "geluBackward", in: { dy, x }, out: { dx }, attrs: { accumulate: false } });
  return dx;
}

/** Each group of rows times its factor. */
export function emitScaleRows(p: Program, x: Tensor, scale: Tensor): Tensor {
  const y = p.activation(`scaled(${x.name})`, x.shape);
  require(asMatrix(x)[0] % size(scale) === 0, "scaleRows", () => `${size(scale)} factors for rows of [${x.shape}]`);
  p.emit<ScaleRowsOp>({ kind: "scaleRows", in: { x, scale }, out: { y }, attrs: {} });
  return y;
}

/** Sum over rows into a target. */
export function emitColumnSum(p: Program, x: Tensor, target: GradientTarget): void {
  require(size(target.tensor) === asMatrix(x)[1], "columnSum", () => `[${x.shape}] into [${target.tensor.shape}]`);
  p.emit<ColumnSumOp>({
    kind: "columnSum",
    in: { x },
    out: { y: target.tensor },
    attrs: { accumulate: target.accumulate },
  });
}

/** scale·Σx into the one-element tensor `y`. */
export function emitSum(p: Program, x: Tensor, y: Tensor, scale: number, accumulate = false): void {
  require(size(y) === 1, "sum", () => `result [${y.shape}] is not one element`);
  p.emit<SumOp>({ kind: "sum", in: { x }, out: { y }, attrs: { scale, accumulate } });
}

export const addRule: OpRule<AddOp> = {
  inPlace: { y: "a" },
  reference(op, at) {
    const a = at(op.in.a), b = at(op.in.b), y = at(op.out.y);
    for (let i = 0; i < y.length; i++) y[i] = a[i] + b[i];
  },
  gradient(op, g) {
    const dy = g.of(op.out.y);
    if (!dy) return;
    const target = g.target(op.in.b);
    if (target?.accumulate) emitAddInto(g.program, target.tensor, dy);
    else if (target) emitCopy(g.program, dy, target.tensor);
    g.donate(op.in.a, dy);
  },
};

export const copyRule: OpRule<CopyOp> = {
  reference(op, at) {
    at(op.out.y).set(at(op.in.x));
  },
};

export const geluRule: OpRule<GeluOp> = {
  reference(op, at) {
    const x = at(op.in.x), y = at(op.out.y);
    for (let i = 0; i < y.length; i++) y[i] = geluOf(x[i]);
  },
  gradient(op, g) {
    const dy = g.of(op.out.y);
    const target = dy && g.target(op.in.x);
    if (!target) return;
    const { tensor: dx, accumulate } = target;
    g.program.emit<GeluBackwardOp>({
      kind: "geluBackward",
      in: { dy, x: op.in.x },
      out: { dx },
      attrs: { accumulate },
    });
  },
};

export const geluBackwardRule: OpRule<GeluBackwardOp> = {
  inPlace: { dx: "dy" },
  readsOutput: (op) => op.attrs.accumulate ? ["dx"] : [],
  reference(op, at) {
    const dy = at(op.in.dy), x = at(op.in.x), dx = at(op.out.dx);
    for (let i = 0; i < dx.length; i++) dx[i] = (op.attrs.accumulate ? dx[i] : 0) + dy[i] * geluDerivative(x[i]);
  },
};

export const scaleRowsRule: OpRule<ScaleRowsOp> = {
  inPlace: { y: "x" },
  reference(op, at) {
    const x = at(op.in.x), scale = at(op.in.scale), y = at(op.out.y);
    const perGroup = x.length / scale.length;
    for (let i = 0; i < y.length; i++) y[i] = scale[Math.floor(i / perGroup)] * x[i];
  },
};

export const columnSumRule: OpRule<ColumnSumOp> = {
  readsOutput: (op) => op.attrs.accumulate ? ["y"] : [],
  reference(op, at) {
    const x = at(op.in.x), y = at(op.out.y);
    const columns = y.length, scale = op.in.scale && at(op.in.scale);
    if (!op.attrs.accumulate) y.fill(0);
    const perScale = scale ? x.length / scale.length : 1;
    for (let i = 0; i < x.length; i++) y[i % columns] += scale ? scale[Math.floor(i / perScale)] * x[i] : x[i];
  },
};

export const sumRule: OpRule<SumOp> = {
  readsOutput: (op) => op.attrs.accumulate ? ["y"] : [],
  reference(op, at) {
    const y = at(op.out.y);
    y[0] = (op.attrs.accumulate ? y[0] : 0) + op.attrs.scale * at(op.in.x).reduce((a, b) => a + b, 0);
  },
};
