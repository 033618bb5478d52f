// Rows of a matrix shared out to lanes: LANES threads a row, 256 / LANES rows a workgroup, meeting in shared memory.
const ROWS = 256u / LANES;
const LOWEST = -3.4028234e38f; // where a maximum starts: −∞ would give NaN when subtracted from itself
var<workgroup> meeting: array<vec4f, 64>;
var<workgroup> upper: array<vec4f, 4>; // when a row has 256 lanes: sums or maxima of sixteen at a time

// Sum of `value` over the lanes of a row; every lane gets it. The order of the sum is fixed.
// LANES is at most 32, or 256 (then a workgroup has one row). Writes to `upper` come a barrier after its last reads.
fn rowSum(value: f32, row: u32, lane: u32) -> f32 {
  if (LANES == 1u) {
    return value;
  }
  let slot = row * LANES + lane;
  meeting[slot / 4u][slot % 4u] = value;
  workgroupBarrier();
  var sum = vec4f();
  if (LANES > 32u) {
    if (lane < 16u) {
      let four = (meeting[4u * lane] + meeting[4u * lane + 1u]) + (meeting[4u * lane + 2u] + meeting[4u * lane + 3u]);
      upper[lane / 4u][lane % 4u] = (four.x + four.y) + (four.z + four.w);
    }
    workgroupBarrier();
    sum = (upper[0] + upper[1]) + (upper[2] + upper[3]);
  } else {
    for (var i = 0u; i < LANES / 4u; i++) {
      sum += meeting[row * (LANES / 4u) + i];
    }
    workgroupBarrier();
  }
  return (sum.x + sum.y) + (sum.z + sum.w);
}

fn rowMax(value: f32, row: u32, lane: u32) -> f32 {
  if (LANES == 1u) {
    return value;
  }
  let slot = row * LANES + lane;
  meeting[slot / 4u][slot % 4u] = value;
  workgroupBarrier();
  var most = vec4f(LOWEST);
  if (LANES > 32u) {
    if (lane < 16u) {
      let four = max(max(meeting[4u * lane], meeting[4u * lane + 1u]), max(meeting[4u * lane + 2u], meeting[4u * lane + 3u]));
      upper[lane / 4u][lane % 4u] = max(max(four.x, four.y), max(four.z, four.w));
    }
    workgroupBarrier();
    most = max(max(upper[0], upper[1]), max(upper[2], upper[3]));
  } else {
    for (var i = 0u; i < LANES / 4u; i++) {
      most = max(most, meeting[row * (LANES / 4u) + i]);
    }
    workgroupBarrier();
  }
  return max(max(most.x, most.y), max(most.z, most.w));
}
