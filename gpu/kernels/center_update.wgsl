// center = momentum·center + (1 − momentum)·sum/rows, unless frozen[0] ≠ 0. One thread an element.
struct Params { count: u32, hasFrozen: u32, momentum: f32, perRow: f32 } // perRow = (1 − momentum)/rows
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> sum: array<f32>;
@group(0) @binding(2) var<storage, read_write> center: array<f32>;
@group(0) @binding(3) var<storage, read_write> frozen: array<f32>;

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
  center[i] = p.momentum * center[i] + p.perRow * sum[i];
}
