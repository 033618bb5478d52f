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
  let joined = joinedMoments(c);
  moments[c] = joined.mean;
  moments[p.count + c] = joined.squares;
}
