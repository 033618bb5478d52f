// x[b, l, :] = lead[l, :] + pos[l, :]; x[b, L + i, :] = patches[b, i, :] + pos[L + i, :]. One thread an element of x, all extents in V:
// first = L·D; leadStride is the same where each image has its own leading tokens, else 0.
struct Params { count: u32, first: u32, perImage: u32, leadStride: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> patches: array<V>;
@group(0) @binding(2) var<storage, read_write> lead: array<V>;
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
  if (within < p.first) {
    token = lead[b * p.leadStride + within];
  } else {
    token = patches[b * (p.perImage - p.first) + within - p.first];
  }
  x[i] = token + pos[within];
}
