// Augmentation: five short kernels over packed pixels in scratch space, exact in 8 bits.
import type { AugmentOp } from "../../models/graph/ops/augment.ts";
import { RECORD } from "../../models/image/crop.ts";
import type { Lowering } from "../lowering.ts";
import type { Kernel, SourceFile } from "../shader.ts";
import blurText from "../kernels/augment_blur.wgsl" with { type: "text" };
import colorText from "../kernels/augment_color.wgsl" with { type: "text" };
import gridText from "../kernels/grid.wgsl" with { type: "text" };
import lumaText from "../kernels/augment_luma.wgsl" with { type: "text" };
import resizeText from "../kernels/augment_resize.wgsl" with { type: "text" };
import rowsText from "../kernels/augment_rows.wgsl" with { type: "text" };
import storeText from "../kernels/augment_store.wgsl" with { type: "text" };

const GRID: SourceFile = { file: "gpu/kernels/grid.wgsl", text: gridText };
const COLOR: SourceFile = { file: "gpu/kernels/augment_color.wgsl", text: colorText };
const BLUR: SourceFile = { file: "gpu/kernels/augment_blur.wgsl", text: blurText };

const RECORD_WORDS = RECORD.words;
const RESIZE: Kernel = {
  name: "augment_resize",
  sources: [GRID, { file: "gpu/kernels/augment_resize.wgsl", text: resizeText }],
  constants: { RECORD_WORDS },
};
const LUMA: Kernel = {
  name: "augment_luma",
  sources: [GRID, COLOR, { file: "gpu/kernels/augment_luma.wgsl", text: lumaText }],
  constants: { RECORD_WORDS },
};

const TILE_WIDTH = 32, TILE_HEIGHT = 8; // of augment_resize.wgsl
const LUMA_CHUNK = 4096; // pixels, of augment_luma.wgsl
const SHARED_BYTES = 16384; // of a workgroup, what every WebGPU device has
const LONGEST_LINE = 1984; // two lines of packed pixels and the box fit there

/** The kernels that hold whole lines in shared memory; one pipeline serves lines of similar length. */
function lineKernels(longest: number): { rows: Kernel; store: Kernel; columns: number } {
  const line = Math.ceil(longest / 32) * 32;
  let columns = 8;
  while (2 * 4 * line * columns + 64 > SHARED_BYTES) columns /= 2;
  return {
    columns,
    rows: {
      name: "augment_rows",
      sources: [GRID, COLOR, BLUR, { file: "gpu/kernels/augment_rows.wgsl", text: rowsText }],
      constants: { RECORD_WORDS, LINE: line, COLUMNS: 1, THREADS: 64 },
    },
    store: {
      name: "augment_store",
      sources: [GRID, BLUR, { file: "gpu/kernels/augment_store.wgsl", text: storeText }],
      constants: { RECORD_WORDS, LINE: line, COLUMNS: columns, THREADS: 256 },
    },
  };
}

/** Resize; luma for contrast; colours and horizontal blur; vertical blur, solarize, normalise and store. */
export function lowerAugment(l: Lowering, op: AugmentOp): void {
  const { count, height, width, layout, patchSize } = op.attrs;
  if (Math.max(height, width) > LONGEST_LINE) {
    throw new RangeError(
      `webgpu: crops of ${height}×${width}; this backend augments up to ${LONGEST_LINE} pixels a side`,
    );
  }
  const table = l.of(op.in.table);
  const image = l.scratch(4 * count * height * width);
  const sums = l.scratch(4 * count);
  const { rows, store, columns } = lineKernels(Math.max(height, width));

  const tilesX = Math.ceil(width / TILE_WIDTH), tilesY = Math.ceil(height / TILE_HEIGHT);
  l.emit(
    RESIZE,
    [l.of(op.in.pixels), table, l.of(op.in.taps), image, sums],
    { u: [count, height, width, tilesX, tilesY] },
    count * tilesX * tilesY,
  );
  const chunks = Math.ceil(height * width / LUMA_CHUNK);
  l.emit(LUMA, [table, image, sums], { u: [count, height * width, chunks, 0] }, count * chunks);
  l.emit(rows, [table, image, sums], { u: [count, height, width, 0] }, count * height);
  const strips = Math.ceil(width / columns);
  l.emit(
    store,
    [table, image, l.of(op.in.levels), l.of(op.out.crops)],
    { u: [count, height, width, strips, layout === "levels" ? 0 : patchSize] },
    count * strips,
  );
}
