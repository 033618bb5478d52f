// From pixels to tokens and back: patches, [CLS] and positions, resampling, picking rows.
import { asMatrix, canViewRows, type Program, require, rows as rowsOf } from "../program.ts";
import { size, type Tensor, tensor } from "../tensor.ts";

import type { Operation, OpRule } from "./rule.ts";

/**
 * image [B, C, H, W] → patches [B·gridH·gridW, C·p·p], elements of a patch ordered channel, row, column as a
 * convolution weight [D, C, p, p] is. Pixels right of and below the last whole patch are dropped, as the reference does.
 */
export type PatchifyOp = Operation<"patchify", { image: Tensor }, { patches: Tensor }, { patchSize: number }>;

/** The inverse of patchify; dropped pixels become 0. */
export type UnpatchifyOp = Operation<"unpatchify", { patches: Tensor }, { image: Tensor }, { patchSize: number }>;

/**
 * x[b, l, :] = lead[l, :] + pos[l, :] for the L leading tokens ([CLS], registers); x[b, L + i, :] = patches[b, i, :] +
 * pos[L + i, :]. pos [L + n, D], x [B·(L + n), D]. lead [L, D] is shared by all images, or [B·L, D] has rows for each.
 */
export type AssembleTokensOp = Operation<
  "assembleTokens",
  { patches: Tensor; lead?: Tensor; pos: Tensor },
  { x: Tensor },
  { images: number }
>;

/**
 * dpatches = dx without the L leading tokens of each image; dlead (+)= Σ_b dx[b, :L, :], or each image's own rows where
 * `leadPerImage`; dpos (+)= Σ_b dx[b].
 */
export type AssembleTokensBackwardOp = Operation<
  "assembleTokensBackward",
  { dx: Tensor },
  { dpatches?: Tensor; dlead?: Tensor; dpos?: Tensor },
  { images: number; lead: number; leadPerImage: boolean; accumulateLead: boolean; accumulatePos: boolean }
>;

/**
 * y[0 … lead] = x[0 … lead]; then, for each output cell,
 * y[lead + oy·outW + ox, :] (+)= Σ_iy Σ_ix wy[oy, iy]·wx[ox, ix]·x[lead + iy·inW + ix, :].
 * wy [outH, inH] and wx [outW, inW] are constants with few non-zeros: bandsY [outH, 2] and bandsX [outW, 2] give
 * the first and one past the last non-zero of each row. The gradient is the same operation with transposed weights.
 */
export type ResampleOp = Operation<
  "resample",
  { x: Tensor; wy: Tensor; wx: Tensor; bandsY: Tensor; bandsX: Tensor },
  { y: Tensor },
  { lead: number; accumulate: boolean }
>;

/** y[target + i, :] = x[start + i·stride, :] for i < count; other rows of y are left alone. */
export type GatherRowsOp = Operation<
  "gatherRows",
  { x: Tensor },
  { y: Tensor },
  { start: number; stride: number; count: number; target: number }
>;

/** The gradient of gatherRows: x[start + i·stride, :] (+)= y[target + i, :]; without accumulate, other rows of x become 0. */
export type ScatterRowsOp = Operation<
  "scatterRows",
  { y: Tensor },
  { x: Tensor },
  { start: number; stride: number; count: number; target: number; accumulate: boolean }
>;

/** Splits an image into patch vectors. Throws {RangeError} when the image is smaller than a patch. */
export function patchify(p: Program, image: Tensor, patchSize: number): Tensor {
  const [B, C, H, W] = image.shape;
  const gridH = Math.floor(H / patchSize), gridW = Math.floor(W / patchSize);
  require(gridH > 0 && gridW > 0, "patchify", () => `image ${H}×${W} is smaller than patch ${patchSize}`);
  const patches = p.activation(`patches(${image.name})`, [B * gridH * gridW, C * patchSize * patchSize]);
  p.emit<PatchifyOp>({ kind: "patchify", in: { image }, out: { patches }, attrs: { patchSize } });
  return patches;
}

/**
 * Puts leading tokens before the patches of each image, and adds positions: → [B·(L + n), D].
 *
 * @param lead [L, D] for all images, or [B·L, D]; left out, positions are all that is added
 */
export function assembleTokens(
  p: Program,
  patches: Tensor,
  lead: Tensor | undefined,
  pos: Tensor,
  images: number,
): Tensor {
  const [rows, D] = asMatrix(patches);
  const tokens = size(pos) / D, L = tokens - rows / images, given = lead ? size(lead) / D : 0;
  require(
    given === L || given === images * L,
    "assembleTokens",
    () =>
      `patches [${patches.shape}] of ${images} images, ${given} leading tokens, pos [${pos.shape}]: pos should hold ` +
      `${given + rows / images}×${D}`,
  );
  const x = p.activation("tokens", [images * tokens, D]);
  p.emit<AssembleTokensOp>({ kind: "assembleTokens", in: { patches, lead, pos }, out: { x }, attrs: { images } });
  return x;
}

/** Leading tokens L of an image, and whether each image has its own. */
export function leadOf({ in: { patches, lead, pos }, attrs: { images } }: AssembleTokensOp): {
  count: number;
  perImage: boolean;
} {
  const [rows, D] = asMatrix(patches);
  const count = size(pos) / D - rows / images;
  return { count, perImage: lead !== undefined && size(lead) !== count * D };
}

/** Weights of one axis, dense [out, in]. */
export interface AxisWeights {
  /** Length of the result. */
  readonly out: number;
  /** Length of the source. */
  readonly in: number;
  /** [out, in], row-major. */
  readonly weights: Float64Array;
}

/** Resamples a grid of rows: x [lead + inH·inW, D] → [lead + outH·outW, D]. */
export function resample(
  p: Program,
  x: Tensor,
  y: AxisWeights,
  xAxis: AxisWeights,
  lead: number,
  into?: Tensor,
): Tensor {
  const [rows, D] = asMatrix(x);
  require(
    rows === lead + y.in * xAxis.in,
    "resample",
    () => `x [${x.shape}] is not ${lead} + ${y.in}×${xAxis.in} rows`,
  );
  const out = into ?? p.activation(`resample(${x.name})`, [lead + y.out * xAxis.out, D]);
  emitResample(p, x, out, y, xAxis, lead, false);
  return out;
}

function emitResample(
  p: Program,
  x: Tensor,
  out: Tensor,
  y: AxisWeights,
  xAxis: AxisWeights,
  lead: number,
  accumulate: boolean,
) {
  p.emit<ResampleOp>({
    kind: "resample",
    in: {
      x,
      wy: tensor("wy", [y.out, y.in], "constant", "f32", Float32Array.from(y.weights)),
      wx: tensor("wx", [xAxis.out, xAxis.in], "constant", "f32", Float32Array.from(xAxis.weights)),
      bandsY: tensor("bandsY", [y.out, 2], "constant", "i32", bands(y)),
      bandsX: tensor("bandsX", [xAxis.out, 2], "constant", "i32", bands(xAxis)),
    },
    out: { y: out },
    attrs: { lead, accumulate },
  });
}

function bands({ out, in: inputs, weights }: AxisWeights): Int32Array {
  const result = new Int32Array(2 * out);
  for (let o = 0; o < out; o++) {
    let first = inputs, last = 0;
    for (let i = 0; i < inputs; i++) if (weights[o * inputs + i] !== 0) first = Math.min(first, i), last = i + 1;
    result[2 * o] = Math.min(first, last), result[2 * o + 1] = last;
  }
  return result;
}

function transposed(axis: Tensor): AxisWeights {
  const [out, inputs] = axis.shape;
  const data = axis.data!;
  const weights = new Float64Array(data.length);
  for (let o = 0; o < out; o++) for (let i = 0; i < inputs; i++) weights[i * out + o] = data[o * inputs + i];
  return { out: inputs, in: out, weights };
}

/** Copies every `stride`-th row, `count` of them, into rows `target…` of `into` (made here unless given). */
export function gatherRows(
  p: Program,
  x: Tensor,
  { start = 0, stride = 1, count, target = 0 }: { start?: number; stride?: number; count: number; target?: number },
  into?: Tensor,
): Tensor {
  const [rows, D] = asMatrix(x);
  require(
    start + (count - 1) * stride < rows,
    "gatherRows",
    () => `row ${start + (count - 1) * stride} of [${x.shape}]`,
  );
  const y = into ?? p.activation(`rows(${x.name})`, [count, D]);
  require(target + count <= asMatrix(y)[0], "gatherRows", () => `rows ${target}…${target + count} of [${y.shape}]`);
  p.emit<GatherRowsOp>({ kind: "gatherRows", in: { x }, out: { y }, attrs: { start, stride, count, target } });
  return y;
}

/** Calls `visit(patchIndex, imageIndex)` for every pixel that belongs to a whole patch. */
function eachPatchPixel(
  [B, C, H, W]: readonly number[],
  p: number,
  visit: (patch: number, pixel: number) => void,
): void {
  const gridH = Math.floor(H / p), gridW = Math.floor(W / p);
  for (let b = 0; b < B; b++) {
    for (let c = 0; c < C; c++) {
      for (let y = 0; y < gridH * p; y++) {
        for (let x = 0; x < gridW * p; x++) {
          const patch = (b * gridH + Math.floor(y / p)) * gridW + Math.floor(x / p);
          visit(patch * C * p * p + (c * p + y % p) * p + x % p, ((b * C + c) * H + y) * W + x);
        }
      }
    }
  }
}

export const patchifyRule: OpRule<PatchifyOp> = {
  reference(op, at) {
    const image = at(op.in.image), patches = at(op.out.patches);
    eachPatchPixel(op.in.image.shape, op.attrs.patchSize, (patch, pixel) => patches[patch] = image[pixel]);
  },
  gradient(op, g) {
    const d = g.of(op.out.patches);
    const target = d && g.target(op.in.image);
    if (!target) return;
    require(!target.accumulate, "patchify", () => "the image feeds two operations; its gradient is written whole");
    g.program.emit<UnpatchifyOp>({
      kind: "unpatchify",
      in: { patches: d },
      out: { image: target.tensor },
      attrs: op.attrs,
    });
  },
};

export const unpatchifyRule: OpRule<UnpatchifyOp> = {
  reference(op, at) {
    const image = at(op.out.image), patches = at(op.in.patches);
    image.fill(0);
    eachPatchPixel(op.out.image.shape, op.attrs.patchSize, (patch, pixel) => image[pixel] = patches[patch]);
  },
};

export const assembleTokensRule: OpRule<AssembleTokensOp> = {
  reference(op, at) {
    const patches = at(op.in.patches), lead = op.in.lead && at(op.in.lead), pos = at(op.in.pos), x = at(op.out.x);
    const { count, perImage: own } = leadOf(op);
    const first = count * asMatrix(op.in.patches)[1], perImage = pos.length;
    for (let i = 0; i < x.length; i++) {
      const b = Math.floor(i / perImage), within = i % perImage;
      x[i] = pos[within] +
        (within < first ? lead![(own ? b * first : 0) + within] : patches[b * (perImage - first) + within - first]);
    }
  },
  gradient(op, g) {
    const dx = g.of(op.out.x);
    if (!dx) return;
    const dpatches = g.target(op.in.patches), dlead = g.target(op.in.lead), dpos = g.target(op.in.pos);
    if (!dpatches && !dlead && !dpos) return;
    const { count, perImage } = leadOf(op);
    require(!dpatches?.accumulate, "assembleTokens", () => "patches feed two operations");
    g.program.emit<AssembleTokensBackwardOp>({
      kind: "assembleTokensBackward",
      in: { dx },
      out: { dpatches: dpatches?.tensor, dlead: dlead?.tensor, dpos: dpos?.tensor },
      attrs: {
        images: op.attrs.images,
        lead: count,
        leadPerImage: perImage,
        accumulateLead: dlead?.accumulate ?? false,
        accumulatePos: dpos?.accumulate ?? false,
      },
    });
  },
};

export const assembleTokensBackwardRule: OpRule<AssembleTokensBackwardOp> = {
  readsOutput: (op) => [...(op.attrs.accumulateLead ? ["dlead"] : []), ...(op.attrs.accumulatePos ? ["dpos"] : [])],
  reference(op, at) {
    const dx = at(op.in.dx), { dpatches, dlead, dpos } = op.out;
    const { images, lead, leadPerImage, accumulateLead, accumulatePos } = op.attrs;
    const first = lead * asMatrix(op.in.dx)[1], perImage = dx.length / images;
    if (dlead && !accumulateLead) at(dlead).fill(0);
    if (dpos && !accumulatePos) at(dpos).fill(0);
    for (let i = 0; i < dx.length; i++) {
      const b = Math.floor(i / perImage), within = i % perImage;
      if (dpos) at(dpos)[within] += dx[i];
      if (within < first) {
        if (dlead) at(dlead)[(leadPerImage ? b * first : 0) + within] += dx[i];
      } else if (dpatches) at(dpatches)[b * (perImage - first) + within - first] = dx[i];
    }
  },
};

export const resampleRule: OpRule<ResampleOp> = {
  readsOutput: (op) => op.attrs.accumulate ? ["y"] : [],
  reference(op, at) {
    const x = at(op.in.x), y = at(op.out.y), wy = at(op.in.wy), wx = at(op.in.wx);
    const { lead, accumulate } = op.attrs;
    const [outH, inH] = op.in.wy.shape, [outW, inW] = op.in.wx.shape;
    const D = asMatrix(op.in.x)[1];
    for (let i = 0; i < lead * D; i++) y[i] = accumulate ? y[i] + x[i] : x[i];
    for (let oy = 0; oy < outH; oy++) {
      for (let ox = 0; ox < outW; ox++) {
        for (let c = 0; c < D; c++) {
          let sum = 0;
          for (let iy = 0; iy < inH; iy++) {
            for (let ix = 0; ix < inW; ix++) {
              sum += wy[oy * inH + iy] * wx[ox * inW + ix] * x[(lead + iy * inW + ix) * D + c];
            }
          }
          const at = (lead + oy * outW + ox) * D + c;
          y[at] = accumulate ? y[at] + sum : sum;
        }
      }
    }
  },
  gradient(op, g) {
    const dy = g.of(op.out.y);
    const target = dy && g.target(op.in.x);
    if (!target) return;
    emitResample(
      g.program,
      dy,
      target.tensor,
      transposed(op.in.wy),
      transposed(op.in.wx),
      op.attrs.lead,
      target.accumulate,
    );
  },
};

export const gatherRowsRule: OpRule<GatherRowsOp> = {
  // Rows outside the target keep what another gather wrote there.
  readsOutput: () => ["y"],
  reference(op, at) {
    const x = at(op.in.x), y = at(op.out.y), D = asMatrix(op.in.x)[1];
    const { start, stride, count, target } = op.attrs;
    for (let i = 0; i < count; i++) {
      const row = start + i * stride;
      y.set(x.subarray(row * D, (row + 1) * D), (target + i) * D);
    }
  },
  gradient(op, g) {
    const dy = g.of(op.out.y);
    if (!dy || !g.needs(op.in.x)) return;
    const { start, stride, count, target } = op.attrs;
    if (stride === 1 && start === 0 && count === asMatrix(op.in.x)[0] && canViewRows(dy, target)) {
      g.donate(op.in.x, rowsOf(dy, target, count));
      return;
    }
    const { tensor: x, accumulate } = g.target(op.in.x)!;
    g.program.emit<ScatterRowsOp>({
      kind: "scatterRows",
      in: { y: dy },
      out: { x },
      attrs: { ...op.attrs, accumulate },
    });
  },
};

export const scatterRowsRule: OpRule<ScatterRowsOp> = {
  readsOutput: (op) => op.attrs.accumulate ? ["x"] : [],
  reference(op, at) {
    const x = at(op.out.x), y = at(op.in.y), D = asMatrix(op.in.y)[1];
    const { start, stride, count, target, accumulate } = op.attrs;
    if (!accumulate) x.fill(0);
    for (let i = 0; i < count; i++) {
      for (let c = 0; c < D; c++) x[(start + i * stride) * D + c] += y[(target + i) * D + c];
    }
  },
};
