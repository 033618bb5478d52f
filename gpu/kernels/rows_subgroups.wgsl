// The same as rows.wgsl where the device lets invocations of a subgroup read each other: sums pair lanes in the same order, so every bit is
// the same for any subgroup size. Wants lane i of a subgroup to be thread i of as many (gpu/subgroups.ts looks), and no lane asleep.
const ROWS = 256u / LANES;
const LOWEST = -3.4028234e38f; // where a maximum starts: −∞ would give NaN when subtracted from itself
var<workgroup> meeting: array<f32, 128>; // of each row, what its subgroups found; a subgroup has two lanes or more

fn rowSum(value: f32, row: u32, lane: u32) -> f32 {
  if (LANES == 1u) {
    return value;
  }
  let size = min(subgroupAdd(1u), LANES);
  var sum = value;
  var left = LANES; // numbers still to be added up
  loop {
    for (var distance = 1u; distance < min(size, left); distance *= 2u) {
      sum += subgroupShuffleXor(sum, distance);
    }
    if (left <= size) {
      break;
    }
    let parts = left / size;
    if (lane < left && lane % size == 0u) {
      meeting[row * (LANES / size) + lane / size] = sum;
    }
    workgroupBarrier();
    sum = meeting[row * (LANES / size) + lane % parts];
    workgroupBarrier();
    left = parts;
  }
  return sum;
}

fn rowMax(value: f32, row: u32, lane: u32) -> f32 {
  if (LANES == 1u) {
    return value;
  }
  let size = min(subgroupAdd(1u), LANES);
  var most = value;
  var left = LANES;
  loop {
    for (var distance = 1u; distance < min(size, left); distance *= 2u) {
      most = max(most, subgroupShuffleXor(most, distance));
    }
    if (left <= size) {
      break;
    }
    let parts = left / size;
    if (lane < left && lane % size == 0u) {
      meeting[row * (LANES / size) + lane / size] = most;
    }
    workgroupBarrier();
    most = meeting[row * (LANES / size) + lane % parts];
    workgroupBarrier();
    left = parts;
  }
  return most;
}
