// Writes the WGSL of a matrix product for one tile shape: register-tiled, staged k-major, the inner block without a loop.
import { range } from "./range.ts";
import type { Prologue } from "../../models/graph/ops/matmul.ts";
import type { Kernel } from "../shader.ts";
import { type ProloguePieces, prologuePieces } from "./matmul_prologue.ts";
import { source } from "./sources.ts";
import { type Tile, TILE_PADDING, tileName, tileThreads } from "./matmul_tiles.ts";

/** Which product to write. */
export interface MatmulVariant {
  readonly tile: Tile;
  /** A is stored [k, m]. */
  readonly transA: boolean;
  /** B is stored [n, k]. */
  readonly transB: boolean;
  /** Four floats a load and store; the contiguous extents of A, B and C are multiples of four. */
  readonly vector: boolean;
  /** The epilogue may be GELU or its derivative; without, the kernel is shorter. */
  readonly gelu: boolean;
  /** Store plain partial products [split, m, n]. */
  readonly split: boolean;
  /** Many products of matrices that lie wherever strides say, one after another in z, without an epilogue; see {@link batchParams}. */
  readonly batched?: boolean;
  /** What a goes through as it is staged. */
  readonly prologueA?: Prologue;
  /** What b goes through. */
  readonly prologueB?: Prologue;
}

/** Where the matrices of batched products lie: first element, and from one image, head and row to the next; columns are neighbours. */
export interface BatchPlace {
  readonly base: number;
  readonly image: number;
  readonly head: number;
  readonly row: number;
}

/** What a batched kernel's `Params` have after those of a single product. */
export function batchParams(heads: number, products: number, places: readonly BatchPlace[]): number[] {
  return [heads, products, ...places.flatMap(({ base, image, head, row }) => [base, image, head, row])];
}

/** The kernel of a variant. */
export function matmulKernel(variant: MatmulVariant): Kernel {
  const { tile, transA, transB, vector, gelu, split, batched, prologueA, prologueB } = variant;
  const name = `matmul ${tileName(tile)} ${transA ? "T" : "N"}${transB ? "T" : "N"}${vector ? " vec4" : ""}` +
    `${gelu ? " gelu" : ""}${split ? " split" : ""}${batched ? " batched" : ""}` +
    `${prologueA ? ` a:${prologueA}` : ""}${prologueB ? ` b:${prologueB}` : ""}`;
  const math = gelu || prologueA === "gelu" || prologueB === "gelu";
  return {
    name,
    constants: { WITH_GELU: gelu ? 1 : 0 },
    sources: [
      source(vector ? "vec4" : "scalar"),
      source("grid"),
      ...(math ? [source("math")] : [{ file: "gpu/kernels/matmul.ts", text: NO_GELU }]),
      leavesOut(variant) ? { file: "gpu/kernels/matmul.ts", text: NO_SLOTS } : source("epilogue_slots"),
      source("epilogue"),
      { file: "gpu/kernels/matmul.ts", text: matmulSource(variant) },
    ],
  };
}

/** Every device has eight bindings: beside the three of a layer norm there is no room for a residual and factors of rows. */
export function leavesOut({ prologueA, prologueB }: Pick<MatmulVariant, "prologueA" | "prologueB">): boolean {
  return prologueA === "layerNorm" || prologueB === "layerNorm";
}

const NO_SLOTS = `
fn residualAt(at: u32) -> V { return V(0.0); }
fn rowScaleOf(row: u32) -> f32 { return 1.0; }`;

const NO_GELU = `
fn gelu(x: V) -> V { return x; }
fn geluDerivative(x: V) -> V { return x; }`;

/**
 * One workgroup a tile of c: BM×BN, held in registers as TM×TN a thread, in named vec4s since naga clamps every array index.
 * Per step of BK: the next pieces of A and B travel from memory to registers while this step computes from workgroup memory.
 * Staged tiles are arrays of rows: the row is a constant then, and the clamp of the other index is the same for every k.
 * Rows of a thread are in groups of four, BM/2 apart when there are eight, so that neighbouring threads read neighbouring banks.
 */
function matmulSource(variant: MatmulVariant): string {
  const { tile, transA, transB, vector, split, batched = false } = variant;
  const { bm, bn, bk, tm, tn } = tile;
  const threads = tileThreads(tile);
  const across = bn / tn;
  const rowGroups = tm / 4, columnGroups = tn / 4;
  const pitchA = (bm + TILE_PADDING) / 4, pitchB = (bn + TILE_PADDING) / 4;
  const loadsA = bm * bk / 4 / threads, loadsB = bn * bk / 4 / threads;
  const aheadA = prologuePieces(variant.prologueA, { operand: "a", kMajor: transA, vector, loads: loadsA });
  const aheadB = prologuePieces(variant.prologueB, { operand: "b", kMajor: !transB, vector, loads: loadsB });
  const a = stager("a", transA, bm, bk, loadsA, threads, batched, aheadA);
  const b = stager("b", !transB, bn, bk, loadsB, threads, batched, aheadB);
  const declared = [
    ...["a", "b", "c", "bias"].map((name) => `${name}: array<V>`),
    ...leavesOut(variant) ? [] : ["residual: array<V>", "rowScale: array<f32>"],
    ...["pre: array<V>", ...aheadA.bindings, ...aheadB.bindings],
  ];
  const lines: string[] = [];
  const rows = range(tm), groups = range(columnGroups);
  for (const i of rows) for (const j of groups) lines.push(`  var c${i}_${j} = vec4f();`);
  const accumulators = lines.join("\n");
  const inner = range(bk).map((k) => {
    const fetch = [
      ...range(rowGroups).map((g) => `    let a${k}_${g} = stagedA[${k}][${g * (bm / 4 / rowGroups)}u + rowGroup];`),
      ...groups.map((g) => `    let b${k}_${g} = stagedB[${k}][${g * (bn / 4 / columnGroups)}u + columnGroup];`),
    ];
    const multiply = rows.flatMap((i) =>
      groups.map((j) =>
        `    c${i}_${j} = fma(vec4f(a${k}_${Math.floor(i / 4)}.${"xyzw"[i % 4]}), b${k}_${j}, c${i}_${j});`
      )
    );
    return [...fetch, ...multiply].join("\n");
  }).join("\n");
  const stores = rows.flatMap((i) =>
    groups.map((j) => {
      const row = `tileRow + ${Math.floor(i / 4) * (bm / rowGroups) + i % 4}u + 4u * rowGroup`;
      const column = `tileColumn + ${j * (bn / columnGroups)}u + 4u * columnGroup`;
      return `  store4(c${i}_${j}, ${row}, ${column}, part);`;
    })
  ).join("\n");
  return `
struct Params {
  m: u32, n: u32, k: u32, flags: u32, rowsPerScale: u32,
  tilesM: u32, tilesN: u32, splits: u32, perSplit: u32, // inner elements of a split, a multiple of BK
${batched ? BATCH_PARAMS : ""}${aheadA.params}${aheadB.params}}
@group(0) @binding(0) var<uniform> p: Params;
${declared.map((binding, i) => `@group(0) @binding(${1 + i}) var<storage, read_write> ${binding};`).join("\n")}

var<workgroup> stagedA: array<array<vec4f, ${pitchA}>, ${bk}>;
var<workgroup> stagedB: array<array<vec4f, ${pitchB}>, ${bk}>;

${batched ? BATCH_PLACES : ""}
${loader("a", vector, batched)}
${loader("b", vector, batched)}
${aheadA.functions}${aheadB.functions}${batched ? batchStorer(vector) : storer(vector, split)}
@compute @workgroup_size(${threads})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = groupIndex(group, groups);
  let perPart = p.tilesM * p.tilesN;
${batched ? BATCH_INDEX : SPLIT_INDEX}
  // Bands of eight rows of tiles, down then across: workgroups that run together share rows of A and of B in cache.
  let within = index % perPart;
  let band = within / (8u * p.tilesN);
  let height = min(8u, p.tilesM - 8u * band);
  let inBand = within - band * 8u * p.tilesN;
  let tileRow = (8u * band + inBand % height) * ${bm}u;
  let tileColumn = (inBand / height) * ${bn}u;
  let begin = ${batched ? "0u" : "part * p.perSplit"};
  let end = min(begin + p.perSplit, p.k);
  let rowGroup = thread / ${across}u;
  let columnGroup = thread % ${across}u;
${a.indices}
${b.indices}
${accumulators}
  var k = begin;
${a.load("var ")}
${b.load("var ")}
  while (k < end) {
${a.stage}
${b.stage}
    workgroupBarrier();
    k += ${bk}u;
    if (k < end) {
${a.load("")}
${b.load("")}
    }
${inner}
    workgroupBarrier();
  }
${stores}
}
`;
}

const SPLIT_INDEX = `  let part = index / perPart;
  if (part >= p.splits) {
    return;
  }`;

const BATCH_PARAMS = `  heads: u32, products: u32,
  aBase: u32, aImage: u32, aHead: u32, aRow: u32,
  bBase: u32, bImage: u32, bHead: u32, bRow: u32,
  cBase: u32, cImage: u32, cHead: u32, cRow: u32,
`;

/** First elements of the matrices of a product. */
const BATCH_PLACES = `
var<private> aFrom: u32;
var<private> bFrom: u32;
var<private> cFrom: u32;`;

const BATCH_INDEX = `  let part = index / perPart;
  if (part >= p.products) {
    return;
  }
  aFrom = p.aBase + part / p.heads * p.aImage + part % p.heads * p.aHead;
  bFrom = p.bBase + part / p.heads * p.bImage + part % p.heads * p.bHead;
  cFrom = p.cBase + part / p.heads * p.cImage + part % p.heads * p.cHead;`;

/** How a thread brings its share of one operand from memory into the staged, k-major tile. */
function stager(
  operand: "a" | "b",
  kMajor: boolean,
  extent: number,
  bk: number,
  loads: number,
  threads: number,
  batched: boolean,
  ahead: ProloguePieces,
): { indices: string; load: (declare: string) => string; stage: string } {
  const staged = operand === "a" ? "stagedA" : "stagedB";
  const start = operand === "a" ? "tileRow" : "tileColumn";
  const limit = operand === "a" ? "p.m" : "p.n";
  const pitch = batched ? `p.${operand}Row` : kMajor ? limit : "p.k";
  const each = range(loads);
  // Four neighbours in memory lie along the tile's own extent (k-major), or along k.
  const perRow = kMajor ? extent / 4 : bk / 4;
  const indices = each.map((i) => {
    const slot = `(thread + ${i * threads}u)`;
    return `  let ${operand}Fast${i} = ${slot} % ${perRow}u;\n  let ${operand}Slow${i} = ${slot} / ${perRow}u;`;
  }).join("\n");
  const load = (declare: string) =>
    [
      ...each.map((i) =>
        kMajor
          ? `  ${declare}${operand}Next${i} = load_${operand}(k + ${operand}Slow${i}, end, ${start} + 4u * ${operand}Fast${i}, ${limit}, ${pitch});`
          : `  ${declare}${operand}Next${i} = load_${operand}(${start} + ${operand}Slow${i}, ${limit}, k + 4u * ${operand}Fast${i}, end, ${pitch});`
      ),
      ahead.load(declare),
    ].join("\n");
  const stage = each.map((i) =>
    kMajor ? `    ${staged}[${operand}Slow${i}][${operand}Fast${i}] = ${ahead.staged(i)};` : [
      `    let ${operand}Staged${i} = ${ahead.staged(i)};`,
      ...range(4).map((j) =>
        `    ${staged}[4u * ${operand}Fast${i} + ${j}u][${operand}Slow${i} / 4u][${operand}Slow${i} % 4u] = ` +
        `${operand}Staged${i}.${"xyzw"[j]};`
      ),
    ].join("\n")
  ).join("\n");
  return { indices: `${indices}\n${ahead.before}`, load, stage };
}

/** Four neighbours of a row, zeros beyond either end. */
function loader(operand: "a" | "b", vector: boolean, batched: boolean): string {
  const from = batched ? `${operand}From + ` : "";
  const head = `fn load_${operand}(row: u32, rows: u32, column: u32, columns: u32, pitch: u32) -> vec4f {`;
  if (vector) {
    return `${head}
  if (row < rows && column < columns) {
    return ${operand}[(${from}row * pitch + column) / 4u];
  }
  return vec4f();
}`;
  }
  const element = (i: number) =>
    `  if (column + ${i}u < columns) {
    v.${"xyzw"[i]} = ${operand}[at + ${i}u];
  }`;
  return `${head}
  var v = vec4f();
  if (row >= rows) {
    return v;
  }
  let at = ${from}row * pitch + column;
${range(4).map(element).join("\n")}
  return v;
}`;
}

function batchStorer(vector: boolean): string {
  const at = "cFrom + row * p.cRow + column";
  const body = vector
    ? `  if (column < p.n) {\n    c[(${at}) / 4u] = v;\n  }`
    : range(4).map((i) => `  if (column + ${i}u < p.n) {\n    c[${at} + ${i}u] = v.${"xyzw"[i]};\n  }`).join("\n");
  return `fn store4(v: vec4f, row: u32, column: u32, part: u32) {
  if (row >= p.m) {
    return;
  }
${body}
}`;
}

function storer(vector: boolean, split: boolean): string {
  const plain = (value: string, at: string) => `c[(part * p.m + row) * (p.n / WIDTH) + ${at}] = ${value};`;
  const put = (value: string, at: string) =>
    split ? plain(value, at) : `storeProduct(${value}, row, ${at}, p.n / WIDTH);`;
  const body = vector
    ? `if (column < p.n) {\n    ${put("v", "column / 4u")}\n  }`
    : range(4).map((i) => `if (column + ${i}u < p.n) {\n    ${put(`v.${"xyzw"[i]}`, `column + ${i}u`)}\n  }`).join(
      "\n  ",
    );
  return `fn store4(v: vec4f, row: u32, column: u32, part: u32) {
  if (row >= p.m) {
    return;
  }
  ${body}
}`;
}
