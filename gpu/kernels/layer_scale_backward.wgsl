// dx (+)= rowScale·gamma·dy. One thread a V; count, columns and perGroup (elements of a factor) are in V.
struct Params { count: u32, columns: u32, perGroup: u32, hasScale: u32, accumulate: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> dy: array<V>;
@group(0) @binding(2) var<storage, read_write> gamma: array<V>;
@group(0) @binding(3) var<storage, read_write> rowScale: array<f32>;
@group(0) @binding(4) var<storage, read_write> dx: array<V>;

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
  var value = gamma[i % p.columns] * dy[i];
  if (p.hasScale != 0u) {
    value = rowScale[i / p.perGroup] * value;
  }
  if (p.accumulate != 0u) {
    value += dx[i];
  }
  dx[i] = value;
}
