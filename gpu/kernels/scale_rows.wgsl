// y[i] = scale[(first + i) / perGroup] · x[i]; y may be x. One thread a V; count, perGroup and first are in V.
struct Params { count: u32, perGroup: u32, first: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<V>;
@group(0) @binding(2) var<storage, read_write> scale: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<V>;

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
  y[i] = scale[(p.first + i) / p.perGroup] * x[i];
}
