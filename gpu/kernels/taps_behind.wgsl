// y[o, c, tap] (+)= x[o, tap, c]: filters as PyTorch stores them. One thread an element.
struct Params { count: u32, C: u32, taps: u32, accumulate: u32 }
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
  let tap = i % p.taps;
  let c = i / p.taps % p.C;
  var value = x[(i / (p.C * p.taps) * p.taps + tap) * p.C + c];
  if (p.accumulate != 0u) {
    value += y[i];
  }
  y[i] = value;
}
