// values, indices [Q, k]: the k largest of scores[q, :], descending, equal scores by ascending index. One workgroup a row.
// Radix selection finds the k-th largest score, then among its equals the largest index still taken, a digit of eight bits a pass over
// the row; then the k winners are listed and each counts how many beat it, which is its place. Counters are integers: no order matters.
struct Params { rows: u32, columns: u32, k: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> scores: array<u32>; // bits of f32
@group(0) @binding(2) var<storage, read_write> values: array<u32>;
@group(0) @binding(3) var<storage, read_write> indices: array<i32>;
@group(0) @binding(4) var<storage, read_write> winners: array<vec2u>; // scratch [Q, k]: key and index

var<workgroup> histogram: array<atomic<u32>, 256>;
var<workgroup> listed: atomic<u32>;
var<workgroup> digit: u32;
var<workgroup> left: u32;
var<workgroup> tied: u32; // whether more elements share the digits found than are still to be taken

// Larger keys are better: the bits of a float reordered so that they compare as the float does; −0 equals 0.
fn keyOf(bits: u32) -> u32 {
  if (bits == 0x80000000u) {
    return 0x80000000u;
  }
  return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

// Thread 0 finds in which digit, from the top, the `left`-th element lies.
fn pickDigit(thread: u32) {
  workgroupBarrier();
  if (thread == 0u) {
    var rest = left;
    var d = 255u;
    loop {
      let here = atomicLoad(&histogram[d]);
      if (here >= rest || d == 0u) {
        break;
      }
      rest -= here;
      d--;
    }
    digit = d;
    tied = select(0u, 1u, atomicLoad(&histogram[d]) > rest);
    left = rest;
  }
  workgroupBarrier();
  atomicStore(&histogram[thread], 0u);
  workgroupBarrier();
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = groupIndex(group, groups);
  if (row >= p.rows) {
    return;
  }
  let start = row * p.columns;
  if (thread == 0u) {
    left = p.k;
  }
  workgroupBarrier();
  var threshold = 0u;
  for (var shift = 32u; shift > 0u; shift -= 8u) {
    let known = select(0xffffffffu << (shift & 31u), 0u, shift == 32u);
    for (var i = thread; i < p.columns; i += 256u) {
      let key = keyOf(scores[start + i]);
      if ((key & known) == threshold) {
        atomicAdd(&histogram[(key >> (shift - 8u)) & 255u], 1u);
      }
    }
    pickDigit(thread);
    threshold |= workgroupUniformLoad(&digit) << (shift - 8u);
  }
  // `left` elements equal to the threshold are taken. If there are more, those of the smallest indices: largest ~index first.
  var lastIndex = 0u;
  let ties = workgroupUniformLoad(&tied);
  for (var shift = select(0u, 32u, ties != 0u); shift > 0u; shift -= 8u) {
    let known = select(0xffffffffu << (shift & 31u), 0u, shift == 32u);
    for (var i = thread; i < p.columns; i += 256u) {
      if (keyOf(scores[start + i]) == threshold && (~i & known) == lastIndex) {
        atomicAdd(&histogram[(~i >> (shift - 8u)) & 255u], 1u);
      }
    }
    pickDigit(thread);
    lastIndex |= workgroupUniformLoad(&digit) << (shift - 8u);
  }
  for (var i = thread; i < p.columns; i += 256u) {
    let key = keyOf(scores[start + i]);
    if (key > threshold || (key == threshold && ~i >= lastIndex)) {
      let place = atomicAdd(&listed, 1u);
      if (place < p.k) {
        winners[row * p.k + place] = vec2u(key, i);
      }
    }
  }
  storageBarrier();
  workgroupBarrier();
  for (var i = thread; i < p.k; i += 256u) {
    let mine = winners[row * p.k + i];
    var place = 0u;
    for (var j = 0u; j < p.k; j++) {
      let other = winners[row * p.k + j];
      if (other.x > mine.x || (other.x == mine.x && other.y < mine.y)) {
        place++;
      }
    }
    values[row * p.k + place] = scores[start + mine.y];
    indices[row * p.k + place] = i32(mine.y);
  }
}
