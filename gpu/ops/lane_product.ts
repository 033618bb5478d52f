// Matrix products on a software adapter.
import type { Binding } from "../dispatch.ts";
import { laneProductKernel, laneTile, type Strides } from "../kernels/lane_product.ts";
import type { Lowering } from "../lowering.ts";

/** A product for each of `images` × `heads`, on operands that lie wherever their strides say. */
export interface LaneProduct {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly images?: number;
  readonly heads?: number;
  readonly scale?: number;
}

/** c = scale·a·b, image by image and head by head. */
export function emitLaneProduct(
  l: Lowering,
  { m, n, k, images = 1, heads = 1, scale = 1 }: LaneProduct,
  [a, placeA]: readonly [Binding, Strides],
  [b, placeB]: readonly [Binding, Strides],
  [c, placeC]: readonly [Binding, Strides],
): void {
  const { rows, columns } = laneTile(l.limits.lanes);
  const tilesN = Math.ceil(n / columns), tiles = Math.ceil(m / rows) * tilesN;
  const strides = [placeA, placeB, placeC].flatMap(({ base = 0, image = 0, head = 0, row, column }) => [
    base,
    image,
    head,
    row,
    column,
  ]);
  l.emit(
    laneProductKernel(l.limits.lanes),
    [a, b, c],
    { u: [m, n, k, heads, tilesN, tiles, images * heads, ...strides], f: [scale] },
    tiles * images * heads,
  );
}
