// Writes the WGSL of attention's whole backward pass for short sequences: one tile holds every token, so scores are computed once.
import type { Kernel } from "../shader.ts";
import {
  ATTENTION_THREADS,
  attentionKernel,
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

/** Tokens that one tile can hold: five rows for each of eight threads. */
export const MOST_SINGLE = 40;

/** Rows of a thread for so many tokens. */
const rowsFor = (tokens: number) => Math.ceil(tokens / 8);

/** Workgroup memory the kernel takes, in bytes. */
export function singleBytes(width: number, tokens: number): number {
  const rows = 8 * rowsFor(tokens);
  return 16 * (2 * rows * rowPitch(width) + rows * probsPitch(rows));
}

/** dq, dk and dv of all tokens; bindings dy, qkv, lse, delta, dqkv. One workgroup a (image, head). Wants at most {@link MOST_SINGLE} tokens. */
export function attentionSingleGradientKernel(width: number, tokens: number): Kernel {
  const r = rowsFor(tokens);
  const name = `attention dq dk dv ${width} ${r}`;
  return attentionKernel(name, width, "gpu/kernels/attention_single.ts", singleSource(width, r));
}

/** Statement that puts `value` where {@link putProbability} would put it in the transposed matrix. */
function putTransposed(i: number, j: number, value: string): string {
  return `probs[tx + ${8 * j}u][${2 * i}u + ty / 4u][ty % 4u] = ${value};`;
}

function singleSource(width: number, r: number): string {
  const rows = range(r), side = 8 * r, groups = range(columnGroups(width));
  const each = (statement: (i: number, j: number) => string) =>
    rows.flatMap((i) => rows.map((j) => `  ${statement(i, j)}`)).join("\n");
  const zeros = (name: string, columns: readonly number[], zero: string) =>
    rows.flatMap((i) => columns.map((j) => `  var ${name}${i}_${j} = ${zero};`)).join("\n");
  const store = (name: string, base: string, i: number) =>
    groups.map((n) =>
      `    if (4u * (tx + ${8 * n}u) < ${width}u) {
      store_dqkv(${name}${i}_${n}, ${base} + row${i} * pitch + 4u * (tx + ${8 * n}u), ${width}u - 4u * (tx + ${
        8 * n
      }u));
    }`
    ).join("\n");
  const gradient = (i: number, j: number) => `p${i}_${j} * (d${i}_${j} - delta${i}) * p.scale`;
  return `// dv = Pᵀ·dy, dk = dSᵀ·q, dq = dS·k with P = exp(q·kᵀ·scale − lse) and dS = P∘(dy·vᵀ − delta)·scale; thread (tx, ty) has
// the scores of queries ty + 8i with keys tx + 8j. left holds q, then dy, then q again; right k, then v, then k again.
struct Params { images: u32, tokens: u32, heads: u32, queries: u32, scale: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> dy: array<V>;
@group(0) @binding(2) var<storage, read_write> qkv: array<V>;
@group(0) @binding(3) var<storage, read_write> lse: array<f32>;
@group(0) @binding(4) var<storage, read_write> delta: array<f32>;
@group(0) @binding(5) var<storage, read_write> dqkv: array<V>;

var<workgroup> left: ${tileType(side, rowPitch(width))};
var<workgroup> right: ${tileType(side, rowPitch(width))};
var<workgroup> probs: ${tileType(side, probsPitch(side))};

${loadFour("qkv", width)}
${loadFour("dy", width)}
${storeFour("dqkv", width)}

@compute @workgroup_size(${ATTENTION_THREADS})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = groupIndex(group, groups);
  if (index >= p.images * p.heads) {
    return;
  }
  let head = index % p.heads;
  let image = index / p.heads;
  let pitch = 3u * p.heads * ${width}u;
  let base = image * p.tokens * pitch + head * ${width}u;
  let keyBase = base + p.heads * ${width}u;
  let valueBase = base + 2u * p.heads * ${width}u;
  let dyBase = (image * p.queries * p.heads + head) * ${width}u;
  let rowBase = (image * p.heads + head) * p.queries;
  let tx = thread % 8u;
  let ty = thread / 8u;
${stage("left", "qkv", side, width, "0u", "p.queries", "base", "pitch")}
${stage("right", "qkv", side, width, "0u", "p.tokens", "keyBase", "pitch")}
  workgroupBarrier();
${zeros("s", rows, "0.0")}
${multiplyRows("left", "right", "s", r, r, width)}
  workgroupBarrier();
${stage("left", "dy", side, width, "0u", "p.queries", "dyBase", `p.heads * ${width}u`)}
${stage("right", "qkv", side, width, "0u", "p.tokens", "valueBase", "pitch")}
  workgroupBarrier();
${zeros("d", rows, "0.0")}
${multiplyRows("left", "right", "d", r, r, width)}
${
    rows.map((i) =>
      `  let row${i} = ty + ${8 * i}u;
  let lse${i} = lse[rowBase + min(row${i}, p.queries - 1u)];
  let delta${i} = delta[rowBase + min(row${i}, p.queries - 1u)];`
    ).join("\n")
  }
${
    each((i, j) =>
      `let p${i}_${j} = select(exponential1(s${i}_${j} * p.scale - lse${i}), 0.0, row${i} >= p.queries || tx + ${
        8 * j
      }u >= p.tokens);`
    )
  }
${each((i, j) => putTransposed(i, j, `p${i}_${j}`))}
  workgroupBarrier();
${zeros("dv", groups, "vec4f()")}
${weighRows("probs", "left", "dv", r, side, width)}
  workgroupBarrier();
${each((i, j) => putTransposed(i, j, gradient(i, j)))}
${stage("left", "qkv", side, width, "0u", "p.queries", "base", "pitch")}
${stage("right", "qkv", side, width, "0u", "p.tokens", "keyBase", "pitch")}
  workgroupBarrier();
${zeros("dk", groups, "vec4f()")}
${weighRows("probs", "left", "dk", r, side, width)}
  workgroupBarrier();
${each((i, j) => putProbability(i, j, gradient(i, j)))}
  workgroupBarrier();
${zeros("dq", groups, "vec4f()")}
${weighRows("probs", "right", "dq", r, side, width)}
${
    rows.map((i) =>
      `  if (row${i} < p.tokens) {
${store("dq", "base", i)}
${store("dk", "keyBase", i)}
${store("dv", "valueBase", i)}
  }`
    ).join("\n")
  }
}
`;
}
