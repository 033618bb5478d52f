// The rectifier, with the addition that precedes it at the end of a residual block.
import { type Program, require } from "../program.ts";
import { size, type Tensor } from "../tensor.ts";
import type { Operation, OpRule } from "./rule.ts";

/** y = max(0, x + residual), without `residual` max(0, x). NaN stays NaN. `y` may be `x`'s memory. */
export type ReluOp = Operation<"relu", { x: Tensor; residual?: Tensor }, { y: Tensor }, Record<never, never>>;

/** dx (+)= dy where y > 0, else 0. `dx` may be `dy`'s memory. */
export type ReluBackwardOp = Operation<
  "reluBackward",
  { dy: Tensor; y: Tensor },
  { dx: Tensor },
  { accumulate: boolean }
>;

/** max(0, x), or max(0, x + residual). */
export function relu(p: Program, x: Tensor, residual?: Tensor): Tensor {
  require(!residual || size(residual) === size(x), "relu", () => `[${x.shape}] + [${residual!.shape}]`);
  const y = p.activation(`relu(${x.name})`, x.shape);
  p.emit<ReluOp>({ kind: "relu", in: { x, residual }, out: { y }, attrs: {} });
  return y;
}

export const reluRule: OpRule<ReluOp> = {
  inPlace: { y: "x" },
  reference(op, at) {
    const x = at(op.in.x), residual = op.in.residual && at(op.in.residual), y = at(op.out.y);
    for (let i = 0; i < y.length; i++) {
      const v = residual ? x[i] + residual[i] : x[i];
      y[i] = v < 0 ? 0 : v; // NaN fails the comparison and stays
    }
  },
  gradient(op, g) {
    const dy = g.of(op.out.y);
    if (!dy) return;
    const { x, residual } = op.in;
    if (!g.needs(residual)) {
      const target = g.target(x);
      if (target) emitReluBackward(g.program, dy, op.out.y, target.tensor, target.accumulate);
      return;
    }
    const d = g.program.activation(`d(${op.out.y.name})`, op.out.y.shape);
    emitReluBackward(g.program, dy, op.out.y, d, false);
    const target = g.target(x);
    if (target) emitReluBackward(g.program, dy, op.out.y, target.tensor, target.accumulate);
    g.donate(residual, d);
  },
};

function emitReluBackward(p: Program, dy: Tensor, y: Tensor, dx: Tensor, accumulate: boolean): void {
  p.emit<ReluBackwardOp>({ kind: "reluBackward", in: { dy, y }, out: { dx }, attrs: { accumulate } });
}

export const reluBackwardRule: OpRule<ReluBackwardOp> = {
  inPlace: { dx: "dy" },
  readsOutput: (op) => op.attrs.accumulate ? ["dx"] : [],
  reference(op, at) {
    const dy = at(op.in.dy), y = at(op.in.y), dx = at(op.out.dx);
    for (let i = 0; i < dx.length; i++) dx[i] = (op.attrs.accumulate ? dx[i] : 0) + (y[i] > 0 ? dy[i] : 0);
  },
};
