// y[r, :] = (x[r, :] − mean)·rstd·weight + bias, rstd = 1/√(variance + eps); stats[r] = (mean, rstd).
// x, y: [rows, columns], columns in V; y may be x, or be left out where products normalise the rows they read. LANES threads a row; the row is read three times, from cache after the first.
struct Params { rows: u32, columns: u32, hasY: u32, hasStats: u32, eps: f32, perColumn: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<V>;
@group(0) @binding(2) var<storage, read_write> weight: array<V>;
@group(0) @binding(3) var<storage, read_write> bias: array<V>;
@group(0) @binding(4) var<storage, read_write> y: array<V>;
@group(0) @binding(5) var<storage, read_write> stats: array<f32>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let slot = thread / LANES;
  let lane = thread % LANES;
  let row = groupIndex(group, groups) * ROWS + slot;
  let start = row * p.columns;
  let columns = select(0u, p.columns, row < p.rows);
  var sum = V(0.0);
  for (var c = lane; c < columns; c += LANES) {
    sum += x[start + c];
  }
  let mean = rowSum(total(sum), slot, lane) * p.perColumn;
  var squares = V(0.0);
  for (var c = lane; c < columns; c += LANES) {
    let d = x[start + c] - mean;
    squares = fma(d, d, squares);
  }
  let rstd = 1.0 / sqrt(rowSum(total(squares), slot, lane) * p.perColumn + p.eps);
  if (p.hasY != 0u) {
    for (var c = lane; c < columns; c += LANES) {
      y[start + c] = normalized(x[start + c], mean, rstd, weight[c], bias[c]);
    }
  }
  if (p.hasStats != 0u && lane == 0u && row < p.rows) {
    stats[2u * row] = mean;
    stats[2u * row + 1u] = rstd;
  }
}
