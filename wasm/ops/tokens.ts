// From pixels to tokens and back.
import { asMatrix } from "../../models/graph/program.ts";
import { leadOf } from "../../models/graph/ops/tokens.ts";
import { bytesPerElement, size, type Tensor } from "../../models/graph/tensor.ts";
import { Code } from "../codes.ts";
import { cut, flag, type Lowering, type Lowerings } from "../lowering.ts";

function movePatches(code: Code, image: Tensor, patches: Tensor, patchSize: number, to: Lowering): void {
  const [B, C, H, W] = image.shape;
  const chunks = code === Code.patchify ? B * Math.floor(H / patchSize) : B;
  to.step(code, chunks, [to.at(image), to.at(patches), B, C, H, W, patchSize]);
}

export const tokenLowerings: Lowerings = {
  patchify: (op, to) => movePatches(Code.patchify, op.in.image, op.out.patches, op.attrs.patchSize, to),
  unpatchify: (op, to) => movePatches(Code.unpatchify, op.out.image, op.in.patches, op.attrs.patchSize, to),

  assembleTokens(op, to) {
    const { patches, lead, pos } = op.in, D = asMatrix(patches)[1], { images } = op.attrs;
    const { count, perImage } = leadOf(op);
    to.step(Code.assembleTokens, images, [
      to.at(patches),
      to.at(lead),
      to.at(pos),
      to.at(op.out.x),
      size(pos) / D,
      D,
      count,
      flag(perImage),
    ]);
  },

  assembleTokensBackward(op, to) {
    const { dx } = op.in, { dpatches, dlead, dpos } = op.out;
    const { images, lead, leadPerImage, accumulateLead, accumulatePos } = op.attrs;
    const D = asMatrix(dx)[1], perImage = size(dx) / images, own = leadPerImage ? dlead : undefined;
    if (dpatches || own) {
      to.step(Code.assembleTokensBackward, images, [
        to.at(dx),
        to.at(dpatches),
        to.at(own),
        perImage / D,
        D,
        lead,
        flag(accumulateLead),
      ]);
    }
    const shared = leadPerImage ? undefined : dlead;
    for (
      const [target, n, accumulate] of [[shared, lead * D, accumulateLead], [dpos, perImage, accumulatePos]] as const
    ) {
      if (!target) continue;
      const { chunks, perChunk } = cut(to, n, { weight: images, multiple: 16 });
      to.step(Code.sumImages, chunks, [
        to.at(dx),
        to.at(target),
        images,
        perImage * 4,
        n,
        perChunk,
        flag(accumulate),
      ]);
    }
  },

  resample(op, to) {
    const { x, wy, wx, bandsY, bandsX } = op.in, { lead, accumulate } = op.attrs;
    const [outH, inH] = wy.shape, [outW, inW] = wx.shape, D = asMatrix(x)[1];
    to.step(Code.resample, lead + outH * outW, [
      to.at(x),
      to.at(wy),
      to.at(wx),
      to.at(bandsY),
      to.at(bandsX),
      to.at(op.out.y),
      D,
      lead,
      inH,
      inW,
      outW,
      flag(accumulate),
    ]);
  },

  gatherRows(op, to) {
    const { x } = op.in, { start, stride, count, target } = op.attrs, D = asMatrix(x)[1];
    const { chunks, perChunk } = cut(to, count, { weight: D });
    const rowBytes = D * bytesPerElement(x.dtype);
    to.step(Code.gatherRows, chunks, [to.at(x), to.at(op.out.y), rowBytes, start, stride, count, target, perChunk]);
  },

  scatterRows(op, to) {
    const { x } = op.out, { start, stride, count, target, accumulate } = op.attrs, [rows, D] = asMatrix(x);
    const { chunks, perChunk } = cut(to, rows, { weight: D });
    const y = to.at(op.in.y);
    to.step(Code.scatterRows, chunks, [
      y,
      to.at(x),
      D,
      rows,
      start,
      stride,
      count,
      target,
      flag(accumulate),
      perChunk,
    ]);
  },
};
