// Writes the WGSL of fused attention: one pass over the keys with a running maximum, so that no score leaves the workgroup.
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

/**
 * The forward kernel; bindings qkv, y, lse. Sixty-four threads a (image, head, tile of queries), and `together` of them a workgroup:
 * of short sequences one alone leaves a core idle while it loads.
 */
export function attentionForwardKernel(variant: AttentionVariant, together = 1): Kernel {
  const { width, rq, rk } = variant;
  const name = `attention ${width} ${rq}x${rk}${together > 1 ? ` ${together} together` : ""}`;
  const text = togetherSource(forwardSource(variant), variant, together);
  return attentionKernel(name, width, "gpu/kernels/attention_forward.ts", text);
}

/** The kernel with several times its threads and workgroup memory, each sixty-four with a part of their own. */
function togetherSource(text: string, { rq, rk }: AttentionVariant, together: number): string {
  if (together === 1) return text;
  const rows: Readonly<Record<string, number>> = {
    queryTile: 8 * rq,
    keyTile: 8 * rk,
    probs: 8 * rq,
    meeting: 16 * rq,
  };
  for (const [name, count] of Object.entries(rows)) {
    text = text.replaceAll(`${name}[`, `${name}[member * ${count}u + `)
      .replace(new RegExp(`(var<workgroup> ${name}: .*, )${count}>;`), `$1${together * count}>;`);
  }
  return text.replace(`@workgroup_size(${ATTENTION_THREADS})`, `@workgroup_size(${together * ATTENTION_THREADS})`)
    .replace("local_invocation_index) thread: u32", "local_invocation_index) invocation: u32")
    .replace(
      /let index = groupIndex\(group, groups\);\n {2}if \(index >= (.*)\) \{\n {4}return;\n {2}\}/,
      `let member = invocation / ${ATTENTION_THREADS}u;
  let thread = invocation % ${ATTENTION_THREADS}u;
  let count = $1;
  let here = groupIndex(group, groups) * ${together}u + member;
  let index = min(here, count - 1u); // who has nothing to do goes along, for the barriers' sake, and stores nothing`,
    )
    .replaceAll(/if \(query(\d) < p\.queries\)/g, "if (query$1 < p.queries && here < count)");
}

function forwardSource({ width, rq, rk }: AttentionVariant): string {
  const bq = 8 * rq, bk = 8 * rk, pitch = rowPitch(width);
  const rows = range(rq), keys = range(rk), groups = range(columnGroups(width));
  const each = (make: (i: number) => string) => rows.map(make).join("\n");
  return `
// y = softmax(q·kᵀ·scale)·v and lse = log Σ exp(q·kᵀ·scale); qkv [B·N, 3·H·${width}], y [B·queries, H·${width}], lse [B, H, queries].
struct Params { images: u32, tokens: u32, heads: u32, queries: u32, tiles: u32, hasLse: u32, scale: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> qkv: array<V>;
@group(0) @binding(2) var<storage, read_write> y: array<V>;
@group(0) @binding(3) var<storage, read_write> lse: array<f32>;

var<workgroup> queryTile: ${tileType(bq, pitch)};
var<workgroup> keyTile: ${tileType(bk, pitch)}; // keys, then values
var<workgroup> probs: ${tileType(bq, probsPitch(bk))};
var<workgroup> meeting: array<vec4f, ${2 * bq}>; // eight numbers a row

${loadFour("qkv", width)}
${storeFour("y", width)}

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
  let firstQuery = index % p.tiles * ${bq}u;
  let head = index / p.tiles % p.heads;
  let image = index / (p.tiles * p.heads);
  let pitch = 3u * p.heads * ${width}u;
  let base = image * p.tokens * pitch + head * ${width}u;
  let tx = thread % 8u;
  let ty = thread / 8u;
${stage("queryTile", "qkv", bq, width, "firstQuery", "p.queries", "base", "pitch")}
${each((i) => `  var most${i} = -3.4028234e38f;\n  var mass${i} = 0.0;`)}
${rows.flatMap((i) => groups.map((n) => `  var o${i}_${n} = vec4f();`)).join("\n")}
  for (var firstKey = 0u; firstKey < p.tokens; firstKey += ${bk}u) {
${stage("keyTile", "qkv", bk, width, "firstKey", "p.tokens", `base + p.heads * ${width}u`, "pitch")}
  workgroupBarrier();
${rows.flatMap((i) => keys.map((j) => `  var s${i}_${j} = 0.0;`)).join("\n")}
${multiplyRows("queryTile", "keyTile", "s", rq, rk, width)}
${
    keys.map((j) =>
      `  let beyond${j} = firstKey + tx + ${8 * j}u >= p.tokens;\n` +
      each((i) => `  s${i}_${j} = select(s${i}_${j} * p.scale, -3.4028234e38f, beyond${j});`)
    ).join("\n")
  }
${
    each((i) =>
      `  meeting[2u * (ty + ${8 * i}u) + tx / 4u][tx % 4u] = ${
        keys.map((j) => `s${i}_${j}`).reduce((a, b) => `max(${a}, ${b})`)
      };`
    )
  }
  workgroupBarrier();
${
    each((i) => {
      const name = `peak${i}`;
      return `  let ${name} = max(meeting[2u * (ty + ${8 * i}u)], meeting[2u * (ty + ${8 * i}u) + 1u]);
  let higher${i} = max(most${i}, max(max(${name}.x, ${name}.y), max(${name}.z, ${name}.w)));
  let shrink${i} = exponential1(most${i} - higher${i});
  most${i} = higher${i};
  mass${i} *= shrink${i};
${groups.map((n) => `  o${i}_${n} *= shrink${i};`).join("\n")}`;
    })
  }
${
    rows.flatMap((i) =>
      keys.map((j) =>
        `  s${i}_${j} = exponential1(s${i}_${j} - most${i});\n  mass${i} += s${i}_${j};\n  ` +
        putProbability(i, j, `s${i}_${j}`)
      )
    ).join("\n")
  }
${stage("keyTile", "qkv", bk, width, "firstKey", "p.tokens", `base + 2u * p.heads * ${width}u`, "pitch")}
  workgroupBarrier();
${weighRows("probs", "keyTile", "o", rq, bk, width)}
  workgroupBarrier();
  }
${each((i) => `  meeting[2u * (ty + ${8 * i}u) + tx / 4u][tx % 4u] = mass${i};`)}
  workgroupBarrier();
${
    each((i) =>
      `  let query${i} = firstQuery + ty + ${8 * i}u;
  if (query${i} < p.queries) {
    let parts = meeting[2u * (ty + ${8 * i}u)] + meeting[2u * (ty + ${8 * i}u) + 1u];
    let mass = (parts.x + parts.y) + (parts.z + parts.w);
    let at = ((image * p.queries + query${i}) * p.heads + head) * ${width}u;
${
        groups.map((n) =>
          `    if (4u * (tx + ${8 * n}u) < ${width}u) {
      store_y(o${i}_${n} / mass, at + 4u * (tx + ${8 * n}u), ${width}u - 4u * (tx + ${8 * n}u));
    }`
        ).join("\n")
      }
    if (p.hasLse != 0u && tx == 0u) {
      lse[(image * p.heads + head) * p.queries + query${i}] = most${i} + logarithm1(mass);
    }
  }`
    )
  }
}
`;
}
