// Rows of a matrix shared out to lanes: LANES threads a row, 256 / LANES rows a workgroup, meeting in shared memory.
const ROWS = 256u / LANES;
const LOWEST = -3.4028234e38f; // where a maximum starts: −∞ would give NaN when subtracted from itself
var<workgroup> meeting: array<vec4f, 64>;
var<workgroup> upper: array<vec4f, 4>; // when a row has 256 lanes: sums or maxima of sixteen at a time

// Four neighbours; lanes are paired, then pairs, then fours, as subgroups do it in rows_subgroups.wgsl.
fn four(v: vec4f) -> f32 {
  return (v.x + v.y) + (v.z + v.w);
}

// Sum of `value` over the lanes of a row; every lane gets it. The order of the sum is fixed.
// LANES is 1, 4, 8, 16, 32 or 256 (then a workgroup has one row). Writes to `upper` come a barrier after its last reads.
fn rowSum(value: f32, row: u32, lane: u32) -> f32 {
  if (LANES == 1u) {
    return value;
  }
  let slot = row * LANES + lane;
  meeting[slot / 4u][slot % 4u] = value;
  workgroupBarrier();
  var sum = 0.0;
  if (LANES > 32u) {
    if (lane < 16u) {
      upper[lane / 4u][lane % 4u] = (four(meeting[4u * lane]) + four(meeting[4u * lane + 1u])) +
        (four(meeting[4u * lane + 2u]) + four(meeting[4u * lane + 3u]));
    }
    workgroupBarrier();
    sum = (four(upper[0]) + four(upper[1])) + (four(upper[2]) + four(upper[3]));
  } else {
    let start = row * (LANES / 4u);
    sum = four(meeting[start]);
    if (LANES >= 8u) {
      sum += four(meeting[start + 1u]);
    }
    if (LANES >= 16u) {
      sum += four(meeting[start + 2u]) + four(meeting[start + 3u]);
    }
    if (LANES >= 32u) {
      sum += (four(meeting[start + 4u]) + four(meeting[start + 5u])) + (four(meeting[start + 6u]) + four(meeting[start + 7u]));
    }
    workgroupBarrier();
  }
  return sum;
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
      let most4 = max(max(meeting[4u * lane], meeting[4u * lane + 1u]), max(meeting[4u * lane + 2u], meeting[4u * lane + 3u]));
      upper[lane / 4u][lane % 4u] = max(max(most4.x, most4.y), max(most4.z, most4.w));
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
