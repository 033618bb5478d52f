// flag[0] = 1 if any of `count` elements of x is NaN or infinite, otherwise left alone. Threads stride the elements;
// several may store the flag, all store the same.
struct Params { count: u32, stride: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> flag: array<f32>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  var bad = false;
  for (var i = groupIndex(group, groups) * 256u + thread; i < p.count; i += p.stride) {
    bad = bad || !isFinite1(x[i]);
  }
  if (bad) {
    flag[0] = 1.0;
  }
}
