// Attention's backward pass as products of matrices over all images and heads, with the scores in scratch space: computed once, not twice.
import { type AttentionAttrs, headWidth } from "../../models/graph/ops/attention.ts";
import type { OpOf } from "../../models/graph/ops/mod.ts";
import { type Binding, NOTHING } from "../dispatch.ts";
import { batchParams, type BatchPlace, matmulKernel } from "../kernels/matmul.ts";
import { chooseTile, type Tile, TILES } from "../kernels/matmul_tiles.ts";
import { kernel } from "../kernels/sources.ts";
import type { Lowering } from "../lowering.ts";
import { widthOf } from "./elementwise.ts";

/** Bytes of scores that are stored at a time; images beyond it take turns. */
const SCORE_BYTES = 2 ** 25;

/** A matrix of each image and head. */
interface Operand {
  readonly binding: Binding;
  readonly place: BatchPlace;
}

/** @param delta Σ dy·y of each query and head */
export function lowerStoredAttentionBackward(l: Lowering, op: OpOf<"attentionBackward">, delta: Binding): void {
  const { images, tokens, heads, queries } = op.attrs;
  const width = headWidth(op.in.qkv, op.attrs), D = heads * width;
  const pitch = Math.ceil(tokens / 4) * 4; // rows of scores, so that products may load four at a time
  const perImage = 4 * heads * queries * pitch;
  const most = Math.max(1, Math.floor(Math.min(SCORE_BYTES, l.limits.bindingBytes) / perImage));
  const dy = l.of(op.in.dy), qkv = l.of(op.in.qkv), lse = l.of(op.in.lse), dqkv = l.of(op.out.dqkv);
  for (let first = 0; first < images; first += most) {
    const count = Math.min(most, images - first);
    l.within(() => {
      const probs = l.scratch(count * perImage), dscores = l.scratch(count * perImage);
      const part = (binding: Binding, i: number): Operand => ({
        binding,
        place: { base: i * D + first * tokens * 3 * D, image: tokens * 3 * D, head: width, row: 3 * D },
      });
      const asked: Operand = {
        binding: dy,
        place: { base: first * queries * D, image: queries * D, head: width, row: D },
      };
      const scores = (binding: Binding): Operand => ({
        binding,
        place: { base: 0, image: heads * queries * pitch, head: queries * pitch, row: pitch },
      });
      const batch = { ...op.attrs, images: count };
      const [q, k, v] = [0, 1, 2].map((i) => part(qkv, i));
      const square = { m: queries, n: tokens, k: width, transA: false, transB: true };
      emitBatch(l, batch, square, q, k, scores(probs));
      emitBatch(l, batch, square, asked, v, scores(dscores));
      const rows = count * heads * queries, skipped = first * heads * queries;
      l.emit(
        kernel("score_gradient", { with: ["math"] }),
        [probs, dscores, lse, delta],
        { u: [rows * pitch, pitch, tokens, skipped], f: [1 / Math.sqrt(width), 1 / Math.sqrt(width)] },
        Math.ceil(rows * pitch / 256),
      );
      const byQuery = { m: queries, n: width, k: tokens, transA: false, transB: false };
      emitBatch(l, batch, byQuery, scores(dscores), k, part(dqkv, 0));
      const byKey = { m: tokens, n: width, k: queries, transA: true, transB: false };
      emitBatch(l, batch, byKey, scores(dscores), q, part(dqkv, 1));
      emitBatch(l, batch, byKey, scores(probs), asked, part(dqkv, 2));
    });
  }
  if (queries === tokens) return;
  const count = images * (tokens - queries) * D;
  l.emit(kernel("clear_columns"), [dqkv], { u: [count, D, tokens, queries, 3 * D] }, Math.ceil(count / 256));
}

interface BatchShape {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly transA: boolean;
  readonly transB: boolean;
}

function emitBatch(
  l: Lowering,
  { images, heads }: AttentionAttrs,
  shape: BatchShape,
  a: Operand,
  b: Operand,
  c: Operand,
): void {
  const { m, n, k, transA, transB } = shape;
  const places = [a, b, c].map(({ place }) => place);
  const vector = widthOf(...places.flatMap(({ base, image, head, row }) => [base, image, head, row])) === 4;
  const tile = tileFor(l, shape);
  const tilesM = Math.ceil(m / tile.bm), tilesN = Math.ceil(n / tile.bn), products = images * heads;
  l.emit(
    matmulKernel({ tile, transA, transB, vector, gelu: false, split: false, batched: true }),
    [a.binding, b.binding, c.binding, NOTHING, NOTHING, NOTHING, NOTHING],
    { u: [m, n, k, 0, 1, tilesM, tilesN, 1, k, ...batchParams(heads, products, places)] },
    tilesM * tilesN * products,
  );
}

/** A tile for one of many small products: what pads least, since there are workgroups enough. */
function tileFor({ limits }: Lowering, { m, n, k, transA, transB }: BatchShape): Tile {
  if (limits.fallback) return TILES["32x32x8"];
  const { tile } = chooseTile({ m: m * 64, n, k, transA, transB }, limits);
  return tile === "lanes" || tile.bm > m || tile.bn > n ? TILES["32x32x8"] : tile;
}
