// Writes the WGSL of attention's backward pass without atomics: one kernel for dq, one for dk and dv, each recomputing the scores.
import type { Kernel } from "../shader.ts";
import {
  ATTENTION_THREADS,
  attentionKernel,
  type AttentionVariant,
  columnGroups,
  loadFour,
  multiplyRows,
  probsPitch,
  putProbability,
  rowPitch,
  stage,
  storeFour,
  tileType,
  weighRows,
} from "./attention_tiles.ts";
import { range } from "./range.ts";

/** dq of the tokens that ask; bindings dy, qkv, lse, delta, dqkv. One workgroup a (image, head, tile of queries). */
export function attentionQueryGradientKernel(variant: AttentionVariant): Kernel {
  return backwardKernel("dq", variant, queryGradientSource(variant));
}

/** dk and dv of all tokens, and zeros as dq of those that do not ask. One workgroup a (image, head, tile of keys). */
export function attentionKeyGradientKernel(variant: AttentionVariant): Kernel {
  return backwardKernel("dk dv", variant, keyGradientSource(variant));
}

function backwardKernel(what: string, { width, rq, rk }: AttentionVariant, text: string): Kernel {
  return attentionKernel(`attention ${what} ${width} ${rq}x${rk}`, width, "gpu/kernels/attention_backward.ts", text);
}

function declarations({ width, rq, rk }: AttentionVariant, probsRows: number, probsColumns: number): string {
  const pitch = rowPitch(width);
  return `
struct Params { images: u32, tokens: u32, heads: u32, queries: u32, tiles: u32, scale: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> dy: array<V>;
@group(0) @binding(2) var<storage, read_write> qkv: array<V>;
@group(0) @binding(3) var<storage, read_write> lse: array<f32>;
@group(0) @binding(4) var<storage, read_write> delta: array<f32>;
@group(0) @binding(5) var<storage, read_write> dqkv: array<V>;

var<workgroup> queryTile: ${tileType(8 * rq, pitch)};
var<workgroup> dyTile: ${tileType(8 * rq, pitch)};
var<workgroup> keyTile: ${tileType(8 * rk, pitch)};
var<workgroup> valueTile: ${tileType(8 * rk, pitch)};
var<workgroup> probs: ${tileType(probsRows, probsPitch(probsColumns))};

${loadFour("qkv", width)}
${loadFour("dy", width)}
${storeFour("dqkv", width)}
`;
}

/** The head of `main`: which image, head and tile; where the matrices start. */
function prologue(width: number, first: string, tile: number): string {
  return `
@compute @workgroup_size(${ATTENTION_THREADS})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = groupIndex(group, groups);
  if (index >= p.images * p.heads * p.tiles) {
    return;
  }
  let ${first} = index % p.tiles * ${tile}u;
  let head = index / p.tiles % p.heads;
  let image = index / (p.tiles * p.heads);
  let pitch = 3u * p.heads * ${width}u;
  let base = image * p.tokens * pitch + head * ${width}u;
  let keyBase = base + p.heads * ${width}u;
  let valueBase = base + 2u * p.heads * ${width}u;
  let dyBase = (image * p.queries * p.heads + head) * ${width}u;
  let rowBase = (image * p.heads + head) * p.queries;
  let tx = thread % 8u;
  let ty = thread / 8u;`;
}

function zeros(name: string, rows: number, columns: number, zero: string): string {
  return range(rows).flatMap((i) => range(columns).map((j) => `  var ${name}${i}_${j} = ${zero};`)).join("\n");
}

/** Statements that store row i of `out` at element `at`. */
function storeRow(out: string, i: number, width: number): string {
  return range(columnGroups(width)).map((n) =>
    `    if (4u * (tx + ${8 * n}u) < ${width}u) {
      store_dqkv(${out}${i}_${n}, at + 4u * (tx + ${8 * n}u), ${width}u - 4u * (tx + ${8 * n}u));
    }`
  ).join("\n");
}

function queryGradientSource(variant: AttentionVariant): string {
  const { width, rq, rk } = variant;
  const bq = 8 * rq, bk = 8 * rk;
  const rows = range(rq), keys = range(rk);
  const head = "p.heads * " + width + "u";
  return `// dq = dS·k with P = exp(q·kᵀ·scale − lse) and dS = P∘(dy·vᵀ − delta)·scale.
${declarations(variant, bq, bk)}
${prologue(width, "firstQuery", bq)}
${stage("queryTile", "qkv", bq, width, "firstQuery", "p.queries", "base", "pitch")}
${stage("dyTile", "dy", bq, width, "firstQuery", "p.queries", "dyBase", head)}
${
    rows.map((i) =>
      `  let query${i} = firstQuery + ty + ${8 * i}u;
  let lse${i} = lse[rowBase + min(query${i}, p.queries - 1u)];
  let delta${i} = delta[rowBase + min(query${i}, p.queries - 1u)];`
    ).join("\n")
  }
${zeros("o", rq, columnGroups(width), "vec4f()")}
  for (var firstKey = 0u; firstKey < p.tokens; firstKey += ${bk}u) {
${stage("keyTile", "qkv", bk, width, "firstKey", "p.tokens", "keyBase", "pitch")}
${stage("valueTile", "qkv", bk, width, "firstKey", "p.tokens", "valueBase", "pitch")}
  workgroupBarrier();
${zeros("s", rq, rk, "0.0")}
${zeros("d", rq, rk, "0.0")}
${multiplyRows("queryTile", "keyTile", "s", rq, rk, width)}
${multiplyRows("dyTile", "valueTile", "d", rq, rk, width)}
${
    keys.map((j) =>
      `  let beyond${j} = firstKey + tx + ${8 * j}u >= p.tokens;\n` +
      rows.map((i) =>
        `  let p${i}_${j} = select(exponential1(s${i}_${j} * p.scale - lse${i}), 0.0, beyond${j});\n  ` +
        putProbability(i, j, `p${i}_${j} * (d${i}_${j} - delta${i}) * p.scale`)
      ).join("\n")
    ).join("\n")
  }
  workgroupBarrier();
${weighRows("probs", "keyTile", "o", rq, bk, width)}
  workgroupBarrier();
  }
${
    rows.map((i) =>
      `  if (query${i} < p.queries) {
    let at = base + query${i} * pitch;
${storeRow("o", i, width)}
  }`
    ).join("\n")
  }
}
`;
}

function keyGradientSource(variant: AttentionVariant): string {
  const { width, rq, rk } = variant;
  const bq = 8 * rq, bk = 8 * rk;
  const rows = range(rk), queries = range(rq);
  const head = "p.heads * " + width + "u";
  return `// dv = Pᵀ·dy and dk = dSᵀ·q with P = exp(q·kᵀ·scale − lse) and dS = P∘(dy·vᵀ − delta)·scale, both transposed here.
${declarations(variant, bk, bq)}
${prologue(width, "firstKey", bk)}
${stage("keyTile", "qkv", bk, width, "firstKey", "p.tokens", "keyBase", "pitch")}
${stage("valueTile", "qkv", bk, width, "firstKey", "p.tokens", "valueBase", "pitch")}
${zeros("dk", rk, columnGroups(width), "vec4f()")}
${zeros("dv", rk, columnGroups(width), "vec4f()")}
  for (var firstQuery = 0u; firstQuery < p.queries; firstQuery += ${bq}u) {
${stage("queryTile", "qkv", bq, width, "firstQuery", "p.queries", "base", "pitch")}
${stage("dyTile", "dy", bq, width, "firstQuery", "p.queries", "dyBase", head)}
  workgroupBarrier();
${zeros("s", rk, rq, "0.0")}
${zeros("d", rk, rq, "0.0")}
${multiplyRows("keyTile", "queryTile", "s", rk, rq, width)}
${multiplyRows("valueTile", "dyTile", "d", rk, rq, width)}
${
    queries.map((j) =>
      `  let query${j} = firstQuery + tx + ${8 * j}u;
  let lse${j} = lse[rowBase + min(query${j}, p.queries - 1u)];
  let delta${j} = delta[rowBase + min(query${j}, p.queries - 1u)];
${
        rows.map((i) =>
          `  let p${i}_${j} = select(exponential1(s${i}_${j} * p.scale - lse${j}), 0.0, query${j} >= p.queries);
  ${putProbability(i, j, `p${i}_${j}`)}`
        ).join("\n")
      }`
    ).join("\n")
  }
  workgroupBarrier();
${weighRows("probs", "dyTile", "dv", rk, bq, width)}
  workgroupBarrier();
${
    rows.flatMap((i) =>
      queries.map((j) => "  " + putProbability(i, j, `p${i}_${j} * (d${i}_${j} - delta${j}) * p.scale`))
    ).join("\n")
  }
  workgroupBarrier();
${weighRows("probs", "queryTile", "dk", rk, bq, width)}
  workgroupBarrier();
  }
${zeros("none", 1, columnGroups(width), "vec4f()")}
${
    rows.map((i) =>
      `  let key${i} = firstKey + ty + ${8 * i}u;
  if (key${i} < p.tokens) {
    var at = keyBase + key${i} * pitch;
${storeRow("dk", i, width)}
    at = valueBase + key${i} * pitch;
${storeRow("dv", i, width)}
    if (key${i} >= p.queries) { // a token that does not ask
      at = base + key${i} * pitch;
${storeRow("none", 0, width)}
    }
  }`
    ).join("\n")
  }
}
`;
}
