// Layer scale: a residual branch weighted channel by channel, and image by image for drop path.
import { asMatrix, type Program, require } from "../program.ts";
import { size, type Tensor } from "../tensor.ts";
import type { Operation, OpRule } from "./rule.ts";

/**
 * y[r, c] = residual[r, c] + rowScale[r / rowsPerScale]·gamma[c]·x[r, c]; x, y, residual [rows, C], gamma [C], rowScale [groups] of
 * consecutive rows. `y` may occupy the memory of `residual`.
 */
export type LayerScaleOp = Operation<
  "layerScale",
  { x: Tensor; gamma: Tensor; residual?: Tensor; rowScale?: Tensor },
  { y: Tensor },
  Record<never, never>
>;

/** dx (+)= rowScale·gamma·dy; dgamma[c] (+)= Σ_r rowScale·x[r, c]·dy[r, c]. */
export type LayerScaleBackwardOp = Operation<
  "layerScaleBackward",
  { dy: Tensor; x: Tensor; gamma: Tensor; rowScale?: Tensor },
  { dx?: Tensor; dgamma?: Tensor },
  { accumulateX: boolean; accumulateGamma: boolean }
>;

/** residual + rowScale·gamma·x; gamma [C] scales the columns of x [rows, C]. */
export function layerScale(
  p: Program,
  x: Tensor,
  gamma: Tensor,
  { residual, rowScale }: { residual?: Tensor; rowScale?: Tensor } = {},
): Tensor {
  const [rows, columns] = asMatrix(x);
  require(size(gamma) === columns, "layerScale", () => `gamma [${gamma.shape}] for x [${x.shape}]`);
  require(
    !residual || size(residual) === size(x),
    "layerScale",
    () => `residual [${residual!.shape}] for x [${x.shape}]`,
  );
  require(
    !rowScale || rows % size(rowScale) === 0,
    "layerScale",
    () => `rowScale [${rowScale!.shape}] should divide ${rows} rows`,
  );
  const y = p.activation(`layerScale(${x.name})`, x.shape);
  p.emit<LayerScaleOp>({ kind: "layerScale", in: { x, gamma, residual, rowScale }, out: { y }, attrs: {} });
  return y;
}

export const layerScaleRule: OpRule<LayerScaleOp> = {
  inPlace: { y: "residual" },
  reference(op, at) {
    const x = at(op.in.x), gamma = at(op.in.gamma), y = at(op.out.y), columns = gamma.length;
    const residual = op.in.residual && at(op.in.residual), rowScale = op.in.rowScale && at(op.in.rowScale);
    const perScale = rowScale ? x.length / rowScale.length : 1;
    for (let i = 0; i < y.length; i++) {
      const scale = gamma[i % columns] * (rowScale ? rowScale[Math.floor(i / perScale)] : 1);
      y[i] = (residual ? residual[i] : 0) + scale * x[i];
    }
  },
  gradient(op, g) {
    const dy = g.of(op.out.y);
    if (!dy) return;
    const { x, gamma, residual, rowScale } = op.in;
    const dx = g.target(x), dgamma = g.target(gamma);
    if (dx || dgamma) {
      g.program.emit<LayerScaleBackwardOp>({
        kind: "layerScaleBackward",
        in: { dy, x, gamma, rowScale },
        out: { dx: dx?.tensor, dgamma: dgamma?.tensor },
        attrs: { accumulateX: dx?.accumulate ?? false, accumulateGamma: dgamma?.accumulate ?? false },
      });
    }
    if (residual) g.donate(residual, dy);
  },
};

export const layerScaleBackwardRule: OpRule<LayerScaleBackwardOp> = {
  readsOutput: (op) => [
    ...(op.attrs.accumulateX ? ["dx"] : []),
    ...(op.attrs.accumulateGamma ? ["dgamma"] : []),
  ],
  reference(op, at) {
    const dy = at(op.in.dy), x = at(op.in.x), gamma = at(op.in.gamma), columns = gamma.length;
    const rowScale = op.in.rowScale && at(op.in.rowScale);
    const perScale = rowScale ? x.length / rowScale.length : 1;
    const dx = op.out.dx && at(op.out.dx), dgamma = op.out.dgamma && at(op.out.dgamma);
    const { accumulateX, accumulateGamma } = op.attrs;
    if (dgamma && !accumulateGamma) dgamma.fill(0);
    for (let i = 0; i < x.length; i++) {
      const d = dy[i] * (rowScale ? rowScale[Math.floor(i / perScale)] : 1);
      if (dgamma) dgamma[i % columns] += d * x[i];
      if (dx) dx[i] = (accumulateX ? dx[i] : 0) + d * gamma[i % columns];
    }
  },
};
