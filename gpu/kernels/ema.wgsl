// target = λ·target + (1 − λ)·source, λ = momentum[0], unless frozen[0] ≠ 0. One thread a V; count is in V.
struct Params { count: u32, hasFrozen: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> source: array<V>;
@group(0) @binding(2) var<storage, read_write> average: array<V>;
@group(0) @binding(3) var<storage, read_write> momentum: array<f32>;
@group(0) @binding(4) var<storage, read_write> frozen: array<f32>;

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
  if (p.hasFrozen != 0u && frozen[0] != 0.0) {
    return;
  }
  let lambda = momentum[0];
  average[i] = lambda * average[i] + (1.0 - lambda) * source[i];
}
