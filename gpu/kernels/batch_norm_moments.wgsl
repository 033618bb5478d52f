// moments [2, C]: mean and Σ(x − mean)² of each column, from those of the chunks of rows, joined in order. One thread a column.
struct Params { count: u32, rows: u32, chunks: u32, rowsPerChunk: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> parts: array<f32>;
@group(0) @binding(2) var<storage, read_write> moments: array<f32>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let c = groupIndex(group, groups) * 256u + thread;
  if (c >= p.count) {
    return;
  }
  var rows = 0.0;
  var mean = 0.0;
  var squares = 0.0;
  for (var chunk = 0u; chunk < p.chunks; chunk++) {
    let extra = f32(min(p.rowsPerChunk, p.rows - chunk * p.rowsPerChunk));
    let delta = parts[2u * chunk * p.count + c] - mean;
    let both = rows + extra;
    mean += delta * extra / both;
    squares += parts[(2u * chunk + 1u) * p.count + c] + delta * delta * rows * extra / both;
    rows = both;
  }
  moments[c] = mean;
  moments[p.count + c] = squares;
}
