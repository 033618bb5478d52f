// Matrix products with everything that can ride on the store (bias, GELU, drop path, residual, accumulation) or on the way in.
import { asMatrix, type Program, require } from "../program.ts";
import { size, type Tensor } from "../tensor.ts";
import type { GradientContext, Operation, OpRule } from "./rule.ts";
import { emitColumnSum, emitGeluBackward, emitScaleRows } from "./elementwise.ts";
import { gelu, geluDerivative } from "./special.ts";

/**
 * What an operand goes through as it is read: element (r, c) of the matrix as it is stored becomes
 *
 * - `gelu`: GELU(x)
 * - `layerNorm`: (x − mean)·rstd·weight[c] + bias[c] with (mean, rstd) = rows[r], rows [extent, 2]
 * - `scaleRows`: rows[r / (extent / groups)]·x, rows [groups]
 */
export type Prologue = "gelu" | "layerNorm" | "scaleRows";

/**
 * c[m, n] = (accumulate ? c : 0) + residual[m, n] + rowScale[m / rowsPerScale] · f(bias[n] + Σₖ A[m, k]·B[k, n])
 *
 * - A is `a` [m, k], or `a` [k, m] transposed when `transA`; B is `b` [k, n], or `b` [n, k] transposed when `transB`.
 *   Leading extents of a, residual and c are flattened into rows.
 * - `f` is the identity, or GELU (`epilogue: "gelu"`, whose argument is stored in `out.pre` if present), or
 *   multiplication by GELU′(`in.pre`) (`epilogue: "geluBackward"`).
 * - `rowScale` [groups]: consecutive m / groups rows share a factor (drop path per image).
 * - `c` may occupy the memory of `residual`.
 * - `prologueA`, `prologueB`: what `a` and `b` go through first, in place of an operation that would store it (see
 *   {@linkcode Prologue}), with `aRows`, `aWeight`, `aBias` or `bRows`, `bWeight`, `bBias`; at most one is a layer norm. Backends
 *   put them in after differentiation, so they have no gradient.
 */
export type MatmulOp = Operation<
  "matmul",
  {
    a: Tensor;
    b: Tensor;
    bias?: Tensor;
    residual?: Tensor;
    rowScale?: Tensor;
    pre?: Tensor;
    aRows?: Tensor;
    aWeight?: Tensor;
    aBias?: Tensor;
    bRows?: Tensor;
    bWeight?: Tensor;
    bBias?: Tensor;
  },
  { c: Tensor; pre?: Tensor },
  {
    transA: boolean;
    transB: boolean;
    epilogue: "none" | "gelu" | "geluBackward";
    accumulate: boolean;
    prologueA?: Prologue;
    prologueB?: Prologue;
  }
>;

/** What an operand goes through as it is read, with the tensors that takes. */
export interface OperandPrologue {
  readonly kind: Prologue;
  readonly rows?: Tensor;
  readonly weight?: Tensor;
  readonly bias?: Tensor;
}

/** The prologue of an operand, if it has one; checks that its tensors agree with it. */
export function operandPrologue({ in: slots, attrs }: MatmulOp, operand: "a" | "b"): OperandPrologue | undefined {
  const kind = operand === "a" ? attrs.prologueA : attrs.prologueB;
  if (!kind) return undefined;
  const [rows, weight, bias] = operand === "a"
    ? [slots.aRows, slots.aWeight, slots.aBias]
    : [slots.bRows, slots.bWeight, slots.bBias];
  const [extent, columns] = asMatrix(slots[operand]);
  require(
    attrs.prologueA !== "layerNorm" || attrs.prologueB !== "layerNorm",
    "matmul",
    () => "both operands go through a layer norm: keep one of them apart",
  );
  const fits = kind === "gelu" ||
    kind === "scaleRows" && rows && extent % size(rows) === 0 ||
    kind === "layerNorm" && rows && size(rows) === 2 * extent && weight && size(weight) === columns && bias &&
      size(bias) === columns;
  require(
    Boolean(fits),
    "matmul",
    () => `${kind} of ${operand} [${slots[operand].shape}] with rows [${rows?.shape}], weight [${weight?.shape}]`,
  );
  return { kind, rows, weight, bias };
}

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
    const a = operandValues(op, "a", at), b = operandValues(op, "b", at), c = at(op.out.c);
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
    if (op.attrs.prologueA || op.attrs.prologueB) {
      throw new TypeError("matmul: prologues have no gradient: differentiate first, then put them in");
    }
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

/** An operand after its prologue. */
function operandValues(op: MatmulOp, operand: "a" | "b", at: (t: Tensor) => Float64Array): Float64Array {
  const stored = at(op.in[operand]), prologue = operandPrologue(op, operand);
  if (!prologue) return stored;
  if (prologue.kind === "gelu") return stored.map(gelu);
  const [extent, columns] = asMatrix(op.in[operand]);
  const rows = at(prologue.rows!);
  if (prologue.kind === "scaleRows") {
    const perScale = extent / rows.length * columns;
    return stored.map((x, i) => rows[Math.floor(i / perScale)] * x);
  }
  const weight = at(prologue.weight!), bias = at(prologue.bias!);
  return stored.map((x, i) => {
    const r = Math.floor(i / columns), c = i % columns;
    return (x - rows[2 * r]) * rows[2 * r + 1] * weight[c] + bias[c];
  });
}

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
