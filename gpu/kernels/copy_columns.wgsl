// to[r, toFirst + c] = source[r, fromFirst + c] for r < rows, c < columns; both matrices of pitches of their own, all counts in V.
// Brings columns of a matrix together, or puts them back. One thread an element.
struct Params { rows: u32, columns: u32, fromPitch: u32, fromFirst: u32, toPitch: u32, toFirst: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> source: array<V>;
@group(0) @binding(2) var<storage, read_write> to: array<V>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let i = groupIndex(group, groups) * 256u + thread;
  if (i >= p.rows * p.columns) {
    return;
  }
  let row = i / p.columns;
  let column = i % p.columns;
  to[row * p.toPitch + p.toFirst + column] = source[row * p.fromPitch + p.fromFirst + column];
}
