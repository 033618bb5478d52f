// y[o, tap, c] = x[o, c, tap]: filters in the order in which im2col writes windows. One thread an element.
struct Params { count: u32, C: u32, taps: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

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
  let c = i % p.C;
  let tap = i / p.C % p.taps;
  y[i] = x[(i / (p.C * p.taps) * p.C + c) * p.taps + tap];
}
