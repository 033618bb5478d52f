// Matrix products with everything that can ride on the store: bias, GELU, drop path, residual, accumulation.
import { asMatrix, type Program, require } from "../program.ts";
import { size, type Tensor } from "../tensor.ts";
import type { GradientContext, Operation, OpRule } from "./rule.ts";
import { emitColumnSum, emitGeluBackward, emitScaleRows } from "./elementwise.ts";
import { gelu, geluDerivative } from "./special.ts";

/**
 * c[m, n] = (accumulate ? c : 0) + residual[m, n] + rowScale[m / rowsPerScale] · f(bias[n] + Σₖ A[m, k]·B[k, n])
 *
 * - A is `a` [m, k], or `a` [k, m] transposed when `transA`; B is `b` [k, n], or `b` [n, k] transposed when `transB`.
 *   Leading extents of a, residual and c are flattened into rows.
 * - `f` is the identity, or GELU (`epilogue: "gelu"`, whose argument is stored in `out.pre` if present), or
 *   multiplication by GELU′(`in.pre`) (`epilogue: "geluBackward"`).
 * - `rowScale` [groups]: consecutive m / groups rows share a factor (drop path per image).
 * - `c` may occupy the memory of `residual`.
 */
export type MatmulOp = Operation<
  "matmul",
  { a: Tensor; b: Tensor; bias?: Tensor; residual?: Tensor; rowScale?: Tensor; pre?: Tensor },
  { c: Tensor; pre?: Tensor },
  { transA: boolean; transB: boolean; epilogue: "none" | "gelu" | "geluBackward"; accumulate: boolean }
>;

/** Extents m, n, k of a product; checks that the operands agree. */
export function matmulExtents(op: MatmulOp): { m: number; n: number; k: number } {
  const [aRows, aColumns] = asMatrix(op.in.a);
  const [bRows, bColumns] = asMatrix(op.in.b);
  const [m, k] = op.attrs.transA ? [aColumns, aRows] : [aRows, aColumns];
  const [kb, n] = op.attrs.transB ? [bColumns, bRows] : [bRows, bColumns];
  require(
    k === kb,
    "matmul",
    () => `inner extents differ: a [${op.in.a.shape}] gives ${k}, b [${op.in.b.shape}] gives ${kb}`,
  );
  return { m, n, k };
}

function emitMatmul(
  p: Program,
  operands: MatmulOp["in"],
  out: MatmulOp["out"],
  attrs: Partial<MatmulOp["attrs"]>,
): void {
  const op = p.emit<MatmulOp>({
    kind: "matmul",
    in: operands,
    out,
    attrs: { transA: false, transB: false, epilogue: "none", accumulate: false, ...attrs },
  });
  const { m, n } = matmulExtents(op);
  const { bias, residual, rowScale, pre } = operands;
  require(size(out.c) === m * n, "matmul", () => `c [${out.c.shape}] should hold ${m}×${n}`);
  require(!bias || size(bias) === n, "matmul", () => `bias [${bias!.shape}] should hold ${n}`);
  require(!residual || size(residual) === m * n, "matmul", () => `residual [${residual!.shape}] should hold ${m}×${n}`);
  require(
    !rowScale || m % size(rowScale) === 0,
    "matmul",
    () => `rowScale [${rowScale!.shape}] should divide ${m} rows`,
  );
  require(!pre || size(pre) === m * n, "matmul", () => `pre [${pre!.shape}] should hold ${m}×${n}`);
}

/** c = op(a)·op(b), no epilogue. */
export function matmul(
  p: Program,
  a: Tensor,
  b: Tensor,
  { transA = false, transB = false, into }: { transA?: boolean; transB?: boolean; into?: Tensor } = {},
): Tensor {
  const [aRows, aColumns] = asMatrix(a);
  const [bRows, bColumns] = asMatrix(b);
  const c = into ?? p.activation(`${a.name}·${b.name}`, [transA ? aColumns : aRows, transB ? bRows : bColumns]);
  emitMatmul(p, { a, b }, { c }, { transA, transB });
  return c;
}

/** x·weightᵀ + bias, x [..., k], weight [n, k] → [..., n]; optionally GELU, and residual + rowScale·(…). */
export function linear(
  p: Program,
  x: Tensor,
  weight: Tensor,
  bias?: Tensor,
  { gelu = false, residual, rowScale, name }: { gelu?: boolean; residual?: Tensor; rowScale?: Tensor; name?: string } =
    {},
): Tensor {
  const n = weight.shape[0];
  const k = size(weight) / n;
  require(
    x.shape.at(-1) === k,
    "linear",
    () => `x [${x.shape}] does not end in ${k}, the inputs of weight ${weight.name} [${weight.shape}]`,
  );
  const shape = [...x.shape.slice(0, -1), n];
  const c = p.activation(name ?? `linear(${weight.name})`, shape);
  const pre = gelu ? p.activation(`${c.name}.pre`, shape) : undefined;
  const flatWeight = weight.shape.length === 2 ? weight : matrixOf(weight);
  emitMatmul(p, { a: x, b: flatWeight, bias, residual, rowScale }, { c, pre }, {
    transB: true,
    epilogue: gelu ? "gelu" : "none",
  });
  return c;
}

/** A weight of more than two extents (a patch projection [D, 3, p, p]) as [n, k], one object per tensor so that gradients find it. */
function matrixOf(weight: Tensor): Tensor {
  const n = weight.shape[0];
  return { ...weight, shape: [n, size(weight) / n] }; // same id: the same tensor under another shape
}

export const matmulRule: OpRule<MatmulOp> = {
  optionalOutputs: ["pre"],
  inPlace: { c: "residual" },
  readsOutput: (op) => op.attrs.accumulate ? ["c"] : [],

  reference(op, at) {
    const { m, n, k } = matmulExtents(op);
    const { transA, transB, epilogue, accumulate } = op.attrs;
    const a = at(op.in.a), b = at(op.in.b), c = at(op.out.c);
    const bias = op.in.bias && at(op.in.bias);
    const residual = op.in.residual && at(op.in.residual);
    const rowScale = op.in.rowScale && at(op.in.rowScale);
    const preIn = op.in.pre && at(op.in.pre);
    const preOut = op.out.pre && at(op.out.pre);
    const rowsPerScale = rowScale ? m / rowScale.length : 1;
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        let v = bias ? bias[j] : 0;
        for (let l = 0; l < k; l++) v += a[transA ? l * m + i : i * k + l] * b[transB ? j * k + l : l * n + j];
        const at = i * n + j;
        if (epilogue === "gelu") {
          if (preOut) preOut[at] = v;
          v = gelu(v);
        } else if (epilogue === "geluBackward") v *= geluDerivative(preIn![at]);
        if (rowScale) v *= rowScale[Math.floor(i / rowsPerScale)];
        if (residual) v += residual[at];
        c[at] = accumulate ? c[at] + v : v;
      }
    }
  },

  gradient(op, g) {
    const { a, b, bias, residual, rowScale } = op.in;
    const p = g.program;
    let d = op.out.pre && g.of(op.out.pre); // already through the GELU
    const dc = g.of(op.out.c);
    if (!d) {
      if (!dc) return;
      d = dc;
      if (rowScale) d = emitScaleRows(p, dc, rowScale);
      if (op.attrs.epilogue === "gelu") d = emitGeluBackward(p, d, op.out.pre!, rowScale || residual ? undefined : d);
    }
    const biasTarget = g.target(bias);
    if (biasTarget) emitColumnSum(p, d, biasTarget);
    emitWeightGradient(op, d, g);
    emitInputGradient(op, a, b, d, g);
    if (residual && dc) g.donate(residual, dc);
  },
};

/** Gradient of `b`: Aᵀ·d, or its transpose, in the layout of `b`. */
function emitWeightGradient(op: MatmulOp, d: Tensor, g: GradientContext): void {
  const target = g.target(op.in.b);
  if (!target) return;
  const { transA, transB } = op.attrs;
  const { accumulate } = target;
  if (transB) {
    emitMatmul(g.program, { a: d, b: op.in.a }, { c: target.tensor }, { transA: true, transB: transA, accumulate });
  } else emitMatmul(g.program, { a: op.in.a, b: d }, { c: target.tensor }, { transA: !transA, accumulate });
}

/** Gradient of `a`: d·Bᵀ, or its transpose; goes through the GELU that made `a` when that is its only use. */
function emitInputGradient(op: MatmulOp, a: Tensor, b: Tensor, d: Tensor, g: GradientContext): void {
  if (!g.needs(a)) return;
  const { transA, transB } = op.attrs;
  const maker = g.soleProducer(a);
  if (
    !transA && maker?.kind === "matmul" && maker.attrs.epilogue === "gelu" && !maker.in.residual && !maker.in.rowScale
  ) {
    const pre = maker.out.pre!;
    const target = g.target(pre)!;
    emitMatmul(g.program, { a: d, b, pre }, { c: target.tensor }, { transB: !transB, epilogue: "geluBackward" });
    return;
  }
  const target = g.target(a)!;
  const { accumulate } = target;
  if (transA) emitMatmul(g.program, { a: b, b: d }, { c: target.tensor }, { transA: transB, transB: true, accumulate });
  else emitMatmul(g.program, { a: d, b }, { c: target.tensor }, { transB: !transB, accumulate });
}
