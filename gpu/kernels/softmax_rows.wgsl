// x[r, :] = softmax(x[r, :]), in place; lse[r] = log Σ exp(x[r, :]). x: [rows, columns]. LANES threads a row.
struct Params { rows: u32, columns: u32, hasLse: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> lse: array<f32>;

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
  var most = LOWEST;
  for (var c = lane; c < columns; c += LANES) {
    most = max(most, x[start + c]);
  }
  let top = rowMax(most, slot, lane);
  var sum = 0.0;
  for (var c = lane; c < columns; c += LANES) {
    let e = exponential1(x[start + c] - top);
    x[start + c] = e;
    sum += e;
  }
  let mass = rowSum(sum, slot, lane);
  for (var c = lane; c < columns; c += LANES) {
    x[start + c] /= mass;
  }
  if (p.hasLse != 0u && lane == 0u && row < p.rows) {
    lse[row] = top + logarithm1(mass);
  }
}
