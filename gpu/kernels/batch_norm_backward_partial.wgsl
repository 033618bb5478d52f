// parts [chunks, 2, C]: Σ dy·x̂ and Σ dy of each column over the rows of a chunk, x̂ = (x − mean)·rstd; dy, x: [rows, C].
// A workgroup has 64 columns and one chunk: four threads a column take every fourth row. column_sum.wgsl adds up the chunks.
struct Params { rows: u32, columns: u32, rowsPerChunk: u32, columnBlocks: u32, first: u32 } // the first row begins chunk `first`
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> stats: array<f32>;
@group(0) @binding(4) var<storage, read_write> parts: array<f32>;

var<workgroup> sums: array<vec2f, 256>;

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
  var sum = vec2f();
  if (column < p.columns) {
    let mean = stats[column];
    let rstd = stats[p.columns + column];
    for (var r = begin + thread / 64u; r < end; r += 4u) {
      let d = dy[r * p.columns + column];
      sum += vec2f(d * (x[r * p.columns + column] - mean) * rstd, d);
    }
  }
  sums[thread] = sum;
  workgroupBarrier();
  if (thread < 64u && column < p.columns && begin < p.rows) {
    sum = (sums[thread] + sums[thread + 64u]) + (sums[thread + 128u] + sums[thread + 192u]);
    parts[2u * (p.first + chunk) * p.columns + column] = sum.x;
    parts[(2u * (p.first + chunk) + 1u) * p.columns + column] = sum.y;
  }
}
