// dx[r, :] (+)= (dy − y·Σ(dy·y)) / norm[r]; where the norm was clamped to eps it is a constant, and the sum drops out.
// dy, y, dx: [rows, columns], columns in V; dx may be dy. LANES threads a row.
struct Params { rows: u32, columns: u32, accumulate: u32, eps: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> dy: array<V>;
@group(0) @binding(2) var<storage, read_write> y: array<V>;
@group(0) @binding(3) var<storage, read_write> norm: array<f32>;
@group(0) @binding(4) var<storage, read_write> dx: array<V>;

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
    sum = fma(dy[start + c], y[start + c], sum);
  }
  var dot = rowSum(total(sum), slot, lane);
  let length = norm[row];
  if (length <= p.eps) {
    dot = 0.0;
  }
  for (var c = lane; c < columns; c += LANES) {
    var value = (dy[start + c] - y[start + c] * dot) / length;
    if (p.accumulate != 0u) {
      value += dx[start + c];
    }
    dx[start + c] = value;
  }
}
