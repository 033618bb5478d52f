// Of each column, over the rows of a chunk: mean and Σ(x − mean)². partial [chunks, 2, C]; x [rows, C].
// A workgroup has 64 columns and one chunk: four threads a column take every fourth row and meet in shared memory.
// Deviations are taken from the chunk's own mean, so a large mean costs no digits.
struct Params { rows: u32, columns: u32, rowsPerChunk: u32, columnBlocks: u32, first: u32 } // the first row begins chunk `first`
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> parts: array<f32>;

var<workgroup> sums: array<f32, 256>;

fn columnTotal(value: f32, thread: u32) -> f32 {
  sums[thread] = value;
  workgroupBarrier();
  let c = thread % 64u;
  let sum = (sums[c] + sums[c + 64u]) + (sums[c + 128u] + sums[c + 192u]);
  workgroupBarrier();
  return sum;
}

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
  let end = select(0u, min(begin + p.rowsPerChunk, p.rows), column < p.columns);
  var sum = 0.0;
  for (var r = begin + thread / 64u; r < end; r += 4u) {
    sum += x[r * p.columns + column];
  }
  let mean = columnTotal(sum, thread) / f32(max(end, begin + 1u) - begin);
  var squares = 0.0;
  for (var r = begin + thread / 64u; r < end; r += 4u) {
    let d = x[r * p.columns + column] - mean;
    squares = fma(d, d, squares);
  }
  squares = columnTotal(squares, thread);
  if (thread < 64u && column < p.columns && begin < p.rows) {
    parts[2u * (p.first + chunk) * p.columns + column] = mean;
    parts[(2u * (p.first + chunk) + 1u) * p.columns + column] = squares;
  }
}
