// c = epilogue(Σ_s parts[s]): adds up the partial products of a matrix product whose inner extent was split, in order.
// parts [splits, m, n]; columns in V. One thread a V of c.
struct Params { count: u32, columns: u32, splits: u32, flags: u32, rowsPerScale: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> parts: array<V>;
@group(0) @binding(2) var<storage, read_write> c: array<V>;
@group(0) @binding(3) var<storage, read_write> bias: array<V>;
@group(0) @binding(4) var<storage, read_write> residual: array<V>;
@group(0) @binding(5) var<storage, read_write> rowScale: array<f32>;
@group(0) @binding(6) var<storage, read_write> pre: array<V>;

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
  var sum = V(0.0);
  for (var s = 0u; s < p.splits; s++) {
    sum += parts[s * p.count + i];
  }
  storeProduct(sum, i / p.columns, i % p.columns, p.columns);
}
