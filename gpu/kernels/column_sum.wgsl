// y[chunk, c] (+)= Σ scale[r / perScale]·x[r, c] over the rows r of a chunk, without the factor if perScale is 0.
// x: [rows, columns], y: [chunks, columns], columns in V.
// A workgroup has 64 columns and one chunk: four threads a column take every fourth row, then add up in order.
// With several chunks y is scratch space, and the same kernel sums its rows: no atomics, one order.
struct Params { rows: u32, columns: u32, rowsPerChunk: u32, columnBlocks: u32, accumulate: u32, perScale: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<V>;
@group(0) @binding(2) var<storage, read_write> y: array<V>;
@group(0) @binding(3) var<storage, read_write> scale: array<f32>;

var<workgroup> sums: array<V, 256>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = groupIndex(group, groups);
  let chunk = index / p.columnBlocks;
  let column = (index % p.columnBlocks) * 64u + thread % 64u;
  let begin = chunk * p.rowsPerChunk;
  let end = min(begin + p.rowsPerChunk, p.rows);
  var sum = V(0.0);
  if (column < p.columns) {
    for (var r = begin + thread / 64u; r < end; r += 4u) {
      var value = x[r * p.columns + column];
      if (p.perScale != 0u) {
        value *= scale[r / p.perScale];
      }
      sum += value;
    }
  }
  sums[thread] = sum;
  workgroupBarrier();
  if (thread < 64u && column < p.columns && begin < p.rows) {
    sum = (sums[thread] + sums[thread + 64u]) + (sums[thread + 128u] + sums[thread + 192u]);
    let at = chunk * p.columns + column;
    if (p.accumulate != 0u) {
      sum += y[at];
    }
    y[at] = sum;
  }
}
