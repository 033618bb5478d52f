// dx (+)= dy where y > 0, elementwise; dx may be dy. One thread a V; count is in V.
struct Params { count: u32, accumulate: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> dy: array<V>;
@group(0) @binding(2) var<storage, read_write> y: array<V>;
@group(0) @binding(3) var<storage, read_write> dx: array<V>;

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
  var d = select(V(0.0), dy[i], y[i] > V(0.0));
  if (p.accumulate != 0u) {
    d += dx[i];
  }
  dx[i] = d;
}
