// Augmentation: one chunk is one crop, from its pixels to its patches.
import { Code } from "../codes.ts";
import type { Lowerings } from "../lowering.ts";

export const augmentLowerings: Lowerings = {
  augment(op, to) {
    const { height, width, maxTaps, layout, patchSize } = op.attrs;
    const image = 4 * Math.ceil(height * width / 4) * 4;
    // One after another in the same place: the ring of rows between the passes of the resize, four lines of the
    // blur twice, a table of levels.
    to.scratch(image + Math.max(4 * maxTaps * width, 32 * Math.max(height, width), 4 * 3 * 256));
    const { pixels, table, taps, levels } = op.in;
    to.step(Code.augment, op.attrs.count, [
      to.at(pixels),
      to.at(table),
      to.at(taps),
      to.at(levels),
      to.at(op.out.crops),
      height,
      width,
      maxTaps,
      layout === "levels" ? 0 : patchSize,
    ]);
  },
};
