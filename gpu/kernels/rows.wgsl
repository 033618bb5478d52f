// Rows of a matrix shared out to lanes: LANES threads a row, 256 / LANES rows a workgroup, meeting in shared memory.
const ROWS = 256u / LANES;
const LOWEST = -3.4028234e38f; // where a maximum starts: −∞ would give NaN when subtracted from itself
var<workgroup> meeting: array<vec4f, 64>;

// Sum of `value` over the lanes of a row; every lane gets it. The order of the sum is fixed.
fn rowSum(value: f32, row: u32, lane: u32) -> f32 {
  let slot = row * LANES + lane;
  meeting[slot / 4u][slot % 4u] = value;
  workgroupBarrier();
  var sum = vec4f();
  for (var i = 0u; i < LANES / 4u; i++) {
    sum += meeting[row * (LANES / 4u) + i];
  }
  workgroupBarrier();
  return (sum.x + sum.y) + (sum.z + sum.w);
}

fn rowMax(value: f32, row: u32, lane: u32) -> f32 {
  let slot = row * LANES + lane;
  meeting[slot / 4u][slot % 4u] = value;
  workgroupBarrier();
  var most = meeting[row * (LANES / 4u)];
  for (var i = 1u; i < LANES / 4u; i++) {
    most = max(most, meeting[row * (LANES / 4u) + i]);
  }
  workgroupBarrier();
  return max(max(most.x, most.y), max(most.z, most.w));
}
