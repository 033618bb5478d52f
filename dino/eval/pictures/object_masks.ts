// Masks of several objects as images: the palette of DAVIS and PASCAL VOC, and reading labels back from colours.

import type { Raster } from "../../../models/image/raster.ts";

/** Colours of the palette: the bits of a label spread over red, green and blue from the highest down. [256, 3] */
export const OBJECT_PALETTE: Uint8Array<ArrayBuffer> = (() => {
  const palette = new Uint8Array(256 * 3);
  for (let label = 0; label < 256; label++) {
    for (let bit = 0; bit < 8; bit++) {
      for (let c = 0; c < 3; c++) {
        palette[3 * label + c] |= (label >> bit & 1 && bit % 3 === c ? 1 : 0) << 7 - Math.floor(bit / 3);
      }
    }
  }
  return palette;
})();

/** Grey levels up to this one are labels as they stand; brighter ones are a foreground. */
const MOST_GREY_LABELS = 32;

/**
 * Labels of a mask's pixels, 0 for the background: colours of {@linkcode OBJECT_PALETTE}, or grey levels that are labels,
 * or black and one other grey.
 *
 * @param name for messages
 * @returns [height, width]
 * @throws {RangeError} if a colour stands for no label
 */
export function labelsOfMask({ data, height, width }: Raster, name: string): Uint8Array<ArrayBuffer> {
  const count = height * width;
  const labels = new Uint8Array(count);
  const levels = new Set<number>();
  let grey = true;
  for (let i = 0; i < count && grey; i++) {
    grey = data[3 * i] === data[3 * i + 1] && data[3 * i] === data[3 * i + 2];
    levels.add(data[3 * i]);
  }
  if (grey) {
    const brightest = Math.max(...levels);
    if (brightest <= MOST_GREY_LABELS) {
      for (let i = 0; i < count; i++) labels[i] = data[3 * i];
      return labels;
    }
    if (levels.size <= 2) {
      for (let i = 0; i < count; i++) labels[i] = data[3 * i] === brightest ? 1 : 0;
      return labels;
    }
  }
  const byColour = new Map<number, number>();
  for (let label = 255; label >= 0; label--) {
    byColour.set(
      OBJECT_PALETTE[3 * label] << 16 | OBJECT_PALETTE[3 * label + 1] << 8 | OBJECT_PALETTE[3 * label + 2],
      label,
    );
  }
  for (let i = 0; i < count; i++) {
    const colour = data[3 * i] << 16 | data[3 * i + 1] << 8 | data[3 * i + 2];
    const label = byColour.get(colour);
    if (label === undefined) {
      throw new RangeError(
        `${name}: colour #${
          colour.toString(16).padStart(6, "0")
        } stands for no object: save the mask with the palette ` +
          "of DAVIS, or as grey levels 0, 1, 2 …",
      );
    }
    labels[i] = label;
  }
  return labels;
}
