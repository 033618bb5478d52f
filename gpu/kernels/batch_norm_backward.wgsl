// dx (+)= weight·rstd·(dy − mean(dy) − x̂·mean(dy·x̂)), without the means in evaluation; sums [2, C] holds Σ dy·x̂, Σ dy. One thread an element; dx may be dy.
struct Params { count: u32, columns: u32, accumulate: u32, perRow: f32 } // perRow is 1/rows, or 0 in evaluation
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> stats: array<f32>;
@group(0) @binding(4) var<storage, read_write> weight: array<f32>;
@group(0) @binding(5) var<storage, read_write> sums: array<f32>;
@group(0) @binding(6) var<storage, read_write> dx: array<f32>;

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
  let c = i % p.columns;
  let rstd = stats[p.columns + c];
  let unit = (x[i] - stats[c]) * rstd;
  var value = weight[c] * rstd * (dy[i] - p.perRow * (sums[p.columns + c] + unit * sums[c]));
  if (p.accumulate != 0u) {
    value += dx[i];
  }
  dx[i] = value;
}
