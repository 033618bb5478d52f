// What the attention kernels share: the division of work, staging of tiles, and the choice of tile heights.
import { range } from "./range.ts";
import type { Kernel } from "../shader.ts";
import { source } from "./sources.ts";

/** Tile heights of an attention kernel: each of 8×8 threads has `rq` queries and `rk` keys, eight rows apart. */
export interface AttentionTile {
  readonly rq: number;
  readonly rk: number;
}

/** What an attention kernel is written for. */
export interface AttentionVariant extends AttentionTile {
  /** Width of a head. */
  readonly width: number;
}

/** Threads of a workgroup, as 8 × 8: `tx` runs over keys or columns, `ty` over rows. */
export const ATTENTION_THREADS = 64;

/** An attention kernel: `text`, written by `file`, behind what each of them includes. */
export function attentionKernel(name: string, width: number, file: string, text: string): Kernel {
  return {
    name,
    sources: [source(width % 4 === 0 ? "vec4" : "scalar"), source("grid"), source("math"), { file, text }],
  };
}

/** Groups of four columns that a thread of each row owns: columns 4·(tx + 8n) … + 3. */
export function columnGroups(width: number): number {
  return Math.ceil(width / 32);
}

/** A staged tile as a WGSL type: an array of rows, so that an index is clamped once for a whole loop. */
export function tileType(rows: number, pitch: number): string {
  return `array<array<vec4f, ${pitch}>, ${rows}>`;
}

/** vec4s from one staged row to the next; one more than the row holds, so that eight rows lie in different banks. */
export function rowPitch(width: number): number {
  return 8 * columnGroups(width) + 1;
}

/** vec4s from one row of the staged probabilities, `columns` wide, to the next. */
export function probsPitch(columns: number): number {
  return columns / 4 + 1;
}

/** Workgroup memory the forward kernel takes, in bytes. */
export function forwardBytes({ width, rq, rk }: AttentionVariant): number {
  return 16 * (8 * (rq + rk) * rowPitch(width) + 8 * rq * probsPitch(8 * rk) + 16 * rq);
}

/** Workgroup memory a backward kernel takes, in bytes. */
export function backwardBytes({ width, rq, rk }: AttentionVariant): number {
  const probs = Math.max(8 * rq * probsPitch(8 * rk), 8 * rk * probsPitch(8 * rq));
  return 16 * (16 * (rq + rk) * rowPitch(width) + probs);
}

/**
 * The tile with the least estimated time: padded score elements, over how many multiplications a thread makes per value it fetches.
 *
 * @param bytes workgroup memory of a tile, which must fit `limit`
 * @param largest rows a thread may have: five, or fewer where the driver takes long to build long kernels
 * @throws {RangeError} if no tile fits
 */
export function chooseAttentionTile(
  queries: number,
  keys: number,
  width: number,
  bytes: (variant: AttentionVariant) => number,
  limit: number,
  largest = 5,
): AttentionTile {
  const [best] = rankAttentionTiles(queries, keys, width, bytes, limit, largest);
  if (!best) {
    throw new RangeError(
      `attention: heads of ${width} columns do not fit ${limit} bytes of workgroup memory: use more heads`,
    );
  }
  return best;
}

/** Every tile that fits, the one with the least estimated time first; see {@link chooseAttentionTile}. */
export function rankAttentionTiles(
  queries: number,
  keys: number,
  width: number,
  bytes: (variant: AttentionVariant) => number,
  limit: number,
  largest = 5,
): AttentionTile[] {
  const padded = (extent: number, r: number) => Math.ceil(extent / (8 * r)) * 8 * r;
  const tiles: { tile: AttentionTile; cost: number }[] = [];
  for (let rq = 1; rq <= largest; rq++) {
    for (let rk = 1; rk <= largest; rk++) {
      if (bytes({ width, rq, rk }) > limit) continue;
      const cost = padded(queries, rq) * padded(keys, rk) * (1 + 2 * (rq + rk) / (rq * rk));
      tiles.push({ tile: { rq, rk }, cost });
    }
  }
  return tiles.sort((a, b) => a.cost - b.cost).map(({ tile }) => tile);
}

/** `load4(name)`: four neighbours of a binding from element `at`, of which `left` exist. Scalar where rows are not multiples of 4. */
export function loadFour(name: string, width: number): string {
  const body = width % 4 === 0
    ? `  return ${name}[at / 4u];`
    : range(4).map((i) => `  if (left > ${i}u) {\n    v.${"xyzw"[i]} = ${name}[at + ${i}u];\n  }`).join("\n") +
      "\n  return v;";
  return `fn load_${name}(at: u32, left: u32) -> vec4f {
${width % 4 === 0 ? "" : "  var v = vec4f();\n"}${body}
}`;
}

/** `store_name(v, at, left)`: the counterpart of {@link loadFour}. */
export function storeFour(name: string, width: number): string {
  const body = width % 4 === 0
    ? `  ${name}[at / 4u] = v;`
    : range(4).map((i) => `  if (left > ${i}u) {\n    ${name}[at + ${i}u] = v.${"xyzw"[i]};\n  }`).join("\n");
  return `fn store_${name}(v: vec4f, at: u32, left: u32) {
${body}
}`;
}

/**
 * Statements that stage `rows` rows of a matrix into workgroup memory: row r from element `base + r·pitch` of binding `name`,
 * zeros beyond `width` columns and where `first + r` reaches `limit`.
 */
export function stage(
  target: string,
  name: string,
  rows: number,
  width: number,
  first: string,
  limit: string,
  base: string,
  pitch: string,
): string {
  const perRow = 8 * columnGroups(width);
  return `  for (var i = thread; i < ${rows * perRow}u; i += ${ATTENTION_THREADS}u) {
    let r = i / ${perRow}u;
    let column = 4u * (i % ${perRow}u);
    var value = vec4f();
    if (${first} + r < ${limit} && column < ${width}u) {
      value = load_${name}(${base} + (${first} + r) * ${pitch} + column, ${width}u - column);
    }
    ${target}[r][i % ${perRow}u] = value;
  }`;
}

/** Statements that add to s_i_j the products of rows ty + 8i of `left` with rows tx + 8j of `right`, over all columns. */
export function multiplyRows(
  left: string,
  right: string,
  s: string,
  rows: number,
  columns: number,
  width: number,
): string {
  const terms = range(rows).flatMap((i) =>
    range(columns).map((j) =>
      `    ${s}${i}_${j} = fma(l${i}.w, r${j}.w, fma(l${i}.z, r${j}.z, fma(l${i}.y, r${j}.y, fma(l${i}.x, r${j}.x, ${s}${i}_${j}))));`
    )
  );
  return `  for (var column = 0u; column < ${Math.ceil(width / 4)}u; column++) {
${range(rows).map((i) => `    let l${i} = ${left}[ty + ${8 * i}u][column];`).join("\n")}
${range(columns).map((j) => `    let r${j} = ${right}[tx + ${8 * j}u][column];`).join("\n")}
${terms.join("\n")}
  }`;
}

/** Statements that add to `out`i_n the product of row ty + 8i of `weights` [·, inner] with `matrix` [inner, columns]. */
export function weighRows(
  weights: string,
  matrix: string,
  out: string,
  rows: number,
  inner: number,
  width: number,
): string {
  const groups = range(columnGroups(width));
  const fetch = [
    ...range(rows).map((i) => `    let w${i} = ${weights}[ty + ${8 * i}u][quad];`),
    ...range(4).flatMap((t) => groups.map((n) => `    let m${t}_${n} = ${matrix}[4u * quad + ${t}u][tx + ${8 * n}u];`)),
  ];
  const terms = range(rows).flatMap((i) =>
    groups.map((n) =>
      `    ${out}${i}_${n} = fma(vec4f(w${i}.w), m3_${n}, fma(vec4f(w${i}.z), m2_${n}, fma(vec4f(w${i}.y), m1_${n}, ` +
      `fma(vec4f(w${i}.x), m0_${n}, ${out}${i}_${n}))));`
    )
  );
  return `  for (var quad = 0u; quad < ${inner / 4}u; quad++) {
${fetch.join("\n")}
${terms.join("\n")}
  }`;
}

/** Statement that puts `value` at row ty + 8i, column tx + 8j of the staged probabilities. */
export function putProbability(i: number, j: number, value: string): string {
  return `probs[ty + ${8 * i}u][${2 * j}u + tx / 4u][tx % 4u] = ${value};`;
}
