// With u = v/norm and s = Σ(dweight·u): dgain[k] (+)= s; dv[k, :] (+)= gain/norm·(dweight − u·s).
// dweight, v, dv: [rows, columns], columns in V. LANES threads a row.
struct Params { rows: u32, columns: u32, hasV: u32, hasGain: u32, accumulate: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> dweight: array<V>;
@group(0) @binding(2) var<storage, read_write> v: array<V>;
@group(0) @binding(3) var<storage, read_write> gain: array<f32>;
@group(0) @binding(4) var<storage, read_write> norm: array<f32>;
@group(0) @binding(5) var<storage, read_write> dv: array<V>;
@group(0) @binding(6) var<storage, read_write> dgain: array<f32>;

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
  let length = norm[row];
  var sum = V(0.0);
  for (var c = lane; c < columns; c += LANES) {
    sum = fma(dweight[start + c], v[start + c] / length, sum);
  }
  let s = rowSum(total(sum), slot, lane);
  if (p.hasV != 0u) {
    let factor = gain[row] / length;
    for (var c = lane; c < columns; c += LANES) {
      var value = factor * (dweight[start + c] - v[start + c] / length * s);
      if (p.accumulate != 0u) {
        value += dv[start + c];
      }
      dv[start + c] = value;
    }
  }
  if (p.hasGain != 0u && lane == 0u && row < p.rows) {
    dgain[row] = select(s, s + dgain[row], p.accumulate != 0u);
  }
}
