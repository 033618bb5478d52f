// y = max(0, x + residual), elementwise; y may be x. One thread a V; count is in V.
struct Params { count: u32, withResidual: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<V>;
@group(0) @binding(2) var<storage, read_write> residual: array<V>;
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
  var value = x[i];
  if (p.withResidual != 0u) {
    value += residual[i];
  }
  y[i] = select(value, V(0.0), value < V(0.0)); // not max, which may drop NaN: the guard against a diverged loss looks for it
}
