// Teacher softmax, loss, center; nearest neighbours.
import { asMatrix } from "../../models/graph/program.ts";
import { size } from "../../models/graph/tensor.ts";
import { Code } from "../codes.ts";
import { cut, type Lowerings, real } from "../lowering.ts";

export const lossLowerings: Lowerings = {
  centeredSoftmax(op, to) {
    const { logits, center, temperature } = op.in, { probs, entropy } = op.out, [rows, K] = asMatrix(logits);
    to.step(Code.centeredSoftmax, rows, [
      to.at(logits),
      to.at(center),
      to.at(temperature),
      to.at(probs),
      to.at(entropy),
      K,
    ]);
  },

  dinoLoss(op, to) {
    const { student, probs } = op.in, { dlogits, losses } = op.out, [rows, K] = asMatrix(student);
    const { globals, images, temperature, gradientScale, firstView = 0 } = op.attrs;
    to.scratch(4 * (K + 16));
    to.step(Code.dinoLoss, rows, [
      to.at(student),
      to.at(probs),
      to.at(dlogits),
      to.at(losses),
      K,
      globals,
      images,
      real(temperature),
      real(gradientScale),
      firstView,
    ]);
  },

  centerUpdate(op, to) {
    const { sum, center, frozen } = op.in, { momentum, rows } = op.attrs, K = size(center);
    const { chunks, perChunk } = cut(to, K, { multiple: 16 });
    to.step(Code.centerUpdate, chunks, [
      to.at(sum),
      to.at(center),
      to.at(op.out.center),
      to.at(frozen),
      K,
      real(momentum),
      real((1 - momentum) / rows),
      perChunk,
    ]);
  },

  topK(op, to) {
    const { scores, earlierValues, earlierIndices } = op.in, { values, indices } = op.out;
    const [rows, columns] = asMatrix(scores), { k, first = 0 } = op.attrs;
    const places = [scores, values, indices, earlierValues, earlierIndices].map((t) => to.at(t));
    to.step(Code.topK, rows, [...places, columns, k, first]);
  },
};
