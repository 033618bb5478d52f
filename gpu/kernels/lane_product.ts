// Writes the WGSL of many small matrix products for software adapters, where every load is a loop over lanes and arithmetic is cheap.
import { range } from "./range.ts";
import type { Kernel } from "../shader.ts";
import { source } from "./sources.ts";

/** Where the elements of a matrix lie: element (r, c) of image i, head h at base + i·image + h·head + r·row + c·column. */
export interface Strides {
  readonly base?: number;
  readonly image?: number;
  readonly head?: number;
  readonly row: number;
  readonly column: number;
}

/** Subgroup sizes the kernel is written for. */
export const LANE_COUNTS: readonly number[] = [4, 8, 16];

/** Rows and columns of the tile of c that one subgroup makes. */
export function laneTile(lanes: number): { rows: number; columns: number } {
  return { rows: 32, columns: Math.min(32, 4 * lanes) };
}

/**
 * c = scale·A·B for each image and head. A workgroup is one subgroup and makes one tile: per step of k each lane loads its rows of A
 * and its columns of B, and A's values are handed round by broadcast, which costs an instruction where a load costs dozens.
 * All strides are parameters, so one pipeline serves every product of a program.
 */
export function laneProductKernel(lanes: number): Kernel {
  return {
    name: `lane product ${lanes}`,
    sources: [source("grid"), { file: "gpu/kernels/lane_product.ts", text: laneProductSource(lanes) }],
  };
}

function laneProductSource(lanes: number): string {
  const { rows, columns } = laneTile(lanes);
  const rowLoads = range(rows / lanes), columnLoads = range(columns / lanes);
  const step = range(rows).map((i) => {
    const row = Math.floor(i / lanes);
    return `    let s${i} = subgroupBroadcast(a${row}, ${i % lanes}u);\n` +
      columnLoads.map((j) => `    c${i}_${j} = fma(s${i}, b${j}, c${i}_${j});`).join("\n");
  }).join("\n");
  return `
struct Params {
  m: u32, n: u32, k: u32, heads: u32, tilesN: u32, tiles: u32, products: u32,
  aBase: u32, aImage: u32, aHead: u32, aRow: u32, aColumn: u32,
  bBase: u32, bImage: u32, bHead: u32, bRow: u32, bColumn: u32,
  cBase: u32, cImage: u32, cHead: u32, cRow: u32, cColumn: u32,
  scale: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> a: array<f32>;
@group(0) @binding(2) var<storage, read_write> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> c: array<f32>;

@compute @workgroup_size(${lanes})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let index = groupIndex(group, groups);
  let product = index / p.tiles;
  if (product >= p.products) {
    return;
  }
  let image = product / p.heads;
  let head = product % p.heads;
  let firstRow = index % p.tiles / p.tilesN * ${rows}u;
  let firstColumn = index % p.tiles % p.tilesN * ${columns}u;
  let baseA = p.aBase + image * p.aImage + head * p.aHead;
  let baseB = p.bBase + image * p.bImage + head * p.bHead;
  let baseC = p.cBase + image * p.cImage + head * p.cHead;
  // Rows and columns beyond the edge repeat the last one and are not stored.
${rowLoads.map((i) => `  var atA${i} = baseA + min(firstRow + ${i * lanes}u + lane, p.m - 1u) * p.aRow;`).join("\n")}
${
    columnLoads.map((j) => `  var atB${j} = baseB + min(firstColumn + ${j * lanes}u + lane, p.n - 1u) * p.bColumn;`)
      .join("\n")
  }
${range(rows).flatMap((i) => columnLoads.map((j) => `  var c${i}_${j} = 0.0;`)).join("\n")}
  for (var k = 0u; k < p.k; k++) {
${rowLoads.map((i) => `    let a${i} = a[atA${i}];\n    atA${i} += p.aColumn;`).join("\n")}
${columnLoads.map((j) => `    let b${j} = b[atB${j}];\n    atB${j} += p.bRow;`).join("\n")}
${step}
  }
${
    range(rows).map((i) =>
      columnLoads.map((j) =>
        `  if (firstRow + ${i}u < p.m && firstColumn + ${j * lanes}u + lane < p.n) {
    c[baseC + (firstRow + ${i}u) * p.cRow + (firstColumn + ${j * lanes}u + lane) * p.cColumn] = p.scale * c${i}_${j};
  }`
      ).join("\n")
    ).join("\n")
  }
}
`;
}
