// ring[row[0], :] = values. One thread a word; the row number is a float where rowIsFloat.
struct Params { count: u32, rowIsFloat: u32, ringWords: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> values: array<u32>;
@group(0) @binding(2) var<storage, read_write> row: array<u32>;
@group(0) @binding(3) var<storage, read_write> ring: array<u32>;

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
  var r = row[0];
  if (p.rowIsFloat != 0u) {
    r = u32(bitcast<f32>(r));
  }
  let at = r * p.count + i;
  if (at < p.ringWords) {
    ring[at] = values[i];
  }
}
