// x[b, 0, :] = cls + pos[0, :]; x[b, 1 + i, :] = patches[b, i, :] + pos[1 + i, :]. One thread an element of x; count, columns, perImage in V.
struct Params { count: u32, columns: u32, perImage: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> patches: array<V>;
@group(0) @binding(2) var<storage, read_write> cls: array<V>;
@group(0) @binding(3) var<storage, read_write> pos: array<V>;
@group(0) @binding(4) var<storage, read_write> x: array<V>;

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
  let b = i / p.perImage;
  let within = i % p.perImage;
  var token: V;
  if (within < p.columns) {
    token = cls[within];
  } else {
    token = patches[b * (p.perImage - p.columns) + within - p.columns];
  }
  x[i] = token + pos[within];
}
