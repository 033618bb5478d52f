// y[group] (+)= scale · Σ x over a workgroup's share of `count` floats. Several workgroups write partial sums,
// which a second dispatch of one workgroup adds up: no atomics, one order.
struct Params { count: u32, perGroup: u32, accumulate: u32, scale: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = groupIndex(group, groups);
  let begin = index * p.perGroup;
  let end = min(begin + p.perGroup, p.count);
  var sum = 0.0;
  for (var i = begin + thread; i < end; i += 256u) {
    sum += x[i];
  }
  sum = p.scale * rowSum(sum, 0u, thread);
  if (thread == 0u && begin < p.count) {
    if (p.accumulate != 0u) {
      sum += y[index];
    }
    y[index] = sum;
  }
}
