// y[r, c] = (x[r, c] − mean)·rstd·weight[c] + bias[c] with (mean, rstd) = stats[r]: part of a matrix, from firstRow and firstColumn on.
// One thread a V; count, columns (of the part) and firstColumn are in V.
struct Params { count: u32, columns: u32, firstRow: u32, firstColumn: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<V>;
@group(0) @binding(2) var<storage, read_write> stats: array<f32>;
@group(0) @binding(3) var<storage, read_write> weight: array<V>;
@group(0) @binding(4) var<storage, read_write> bias: array<V>;
@group(0) @binding(5) var<storage, read_write> y: array<V>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let i = groupIndex(group, groups) * 256u + thread;
  if (i >= p.count) {
    return;
  }
  let row = 2u * (p.firstRow + i / p.columns);
  let column = p.firstColumn + i % p.columns;
  y[i] = normalized(x[i], stats[row], stats[row + 1u], weight[column], bias[column]);
}
