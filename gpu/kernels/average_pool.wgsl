// y[b, c] = mean of x[b, row, c]; x [B, rows, C], y [B, C]; count and C are in V. One thread a V of y.
struct Params { count: u32, C: u32, rows: u32, share: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<V>;
@group(0) @binding(2) var<storage, read_write> y: array<V>;

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
  var sum = V(0.0);
  var at = i / p.C * p.rows * p.C + i % p.C;
  for (var row = 0u; row < p.rows; row++) {
    sum += x[at];
    at += p.C;
  }
  y[i] = sum * p.share;
}
