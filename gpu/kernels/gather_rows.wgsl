// y[target + i, :] = x[start + i·stride, :], i < count / columns; other rows of y stay. One thread an element; count and columns in V.
struct Params { count: u32, columns: u32, start: u32, stride: u32, place: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<V>;
@group(0) @binding(2) var<storage, read_write> y: array<V>;

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
  y[p.place * p.columns + i] = x[(p.start + row * p.stride) * p.columns + i % p.columns];
}
