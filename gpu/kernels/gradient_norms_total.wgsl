// norms[s] = Σ partial over the blocks of segment s, in order; ranges[s] = (first block, blocks). One thread a segment.
struct Params { count: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> parts: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> ranges: array<vec2u>;
@group(0) @binding(3) var<storage, read_write> norms: array<vec4f>;

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
  let range = ranges[i];
  var sum = vec4f();
  for (var b = 0u; b < range.y; b++) {
    sum += parts[range.x + b];
  }
  norms[i] = sum;
}
