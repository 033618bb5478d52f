// dx[b, row, c] (+)= dy[b, c]/rows; dx [B, rows, C], dy [B, C]; count and C are in V. One thread a V of dx.
struct Params { count: u32, C: u32, rows: u32, accumulate: u32, share: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> dy: array<V>;
@group(0) @binding(2) var<storage, read_write> dx: array<V>;

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
  var value = dy[i / (p.C * p.rows) * p.C + i % p.C] * p.share;
  if (p.accumulate != 0u) {
    value += dx[i];
  }
  dx[i] = value;
}
