// x[image, row, c] = 0 for the columns c < columns of rows from `first` on; x: [images, rows, pitch]. One thread an element.
struct Params { count: u32, columns: u32, rows: u32, first: u32, pitch: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;

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
  let row = i / p.columns;
  let cleared = p.rows - p.first;
  x[(row / cleared * p.rows + p.first + row % cleared) * p.pitch + i % p.columns] = 0.0;
}
