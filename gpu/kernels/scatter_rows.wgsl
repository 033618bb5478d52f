// x[start + i·stride, :] (+)= y[target + i, :] for i < picked; without accumulate other rows of x become 0. One thread an element of x, in V.
struct Params { count: u32, columns: u32, start: u32, stride: u32, picked: u32, place: u32, accumulate: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> y: array<V>;
@group(0) @binding(2) var<storage, read_write> x: array<V>;

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
  let row = i / p.columns;
  var value = V(0.0);
  if (row >= p.start && (row - p.start) % p.stride == 0u && (row - p.start) / p.stride < p.picked) {
    value = y[(p.place + (row - p.start) / p.stride) * p.columns + i % p.columns];
  } else if (p.accumulate != 0u) {
    return;
  }
  if (p.accumulate != 0u) {
    value += x[i];
  }
  x[i] = value;
}
