// y[r, :] = gain[r] · x[r, :] / length, length = max(‖x[r, :]‖, eps); norm[r] = length. gain is 1 where absent.
// The L2 norm of features, and with a gain and eps = 0 the weight norm of the head. x, y: [rows, columns], columns in V; y may be x.
struct Params { rows: u32, columns: u32, hasNorm: u32, hasGain: u32, eps: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<V>;
@group(0) @binding(2) var<storage, read_write> gain: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<V>;
@group(0) @binding(4) var<storage, read_write> norm: array<f32>;

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
  var squares = V(0.0);
  for (var c = lane; c < columns; c += LANES) {
    squares = fma(x[start + c], x[start + c], squares);
  }
  let length = max(sqrt(rowSum(total(squares), slot, lane)), p.eps);
  var factor = 1.0;
  if (p.hasGain != 0u) {
    factor = gain[row];
  }
  for (var c = lane; c < columns; c += LANES) {
    y[start + c] = factor * x[start + c] / length;
  }
  if (p.hasNorm != 0u && lane == 0u && row < p.rows) {
    norm[row] = length;
  }
}
