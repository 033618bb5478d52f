// stats [2, C] = mean and 1/√(variance + eps) of each column, from the chunks' means and squared deviations, joined in order;
// running ← (1 − momentum)·running + momentum·batch, with the unbiased variance. Evaluation takes the running ones. One thread a column.
struct Params { count: u32, rows: u32, chunks: u32, rowsPerChunk: u32, training: u32, eps: f32, momentum: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> parts: array<f32>;
@group(0) @binding(2) var<storage, read_write> runningMean: array<f32>;
@group(0) @binding(3) var<storage, read_write> runningVar: array<f32>;
@group(0) @binding(4) var<storage, read_write> stats: array<f32>;

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
  var mean = runningMean[c];
  var variance = runningVar[c];
  if (p.training != 0u) {
    let joined = joinedMoments(c);
    mean = joined.mean;
    variance = joined.squares / joined.rows;
    runningMean[c] += p.momentum * (mean - runningMean[c]);
    runningVar[c] += p.momentum * (joined.squares / (joined.rows - 1.0) - runningVar[c]);
  }
  stats[c] = mean;
  stats[p.count + c] = 1.0 / sqrt(variance + p.eps);
}
