// winners [Q, k]: which k of a row are largest, in no order; the row is the k earlier winners, if any, then scores[q, :]. Of equal ones
// those in front are taken: an earlier winner has a smaller index, and of equal ones those are listed by index. One workgroup a row.
// Radix selection finds the k-th largest score, then among its equals the last place still taken, a digit of eight bits a pass over
// the row; then the winners are listed, and top_k_rank.wgsl puts them in order. Counters are integers: no order matters.
// (In a dispatch of its own, because llvmpipe stops an invocation's loops after 65535 rounds in all, without a word.)
struct Params { rows: u32, columns: u32, k: u32, earlier: u32 } // earlier = k if there are earlier winners, else 0
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> scores: array<u32>; // bits of f32
@group(0) @binding(2) var<storage, read_write> earlierValues: array<u32>;
@group(0) @binding(3) var<storage, read_write> winners: array<vec2u>; // key and place in the row

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

// The key at place i of a row: of an earlier winner, or of a score.
fn keyAt(row: u32, i: u32) -> u32 {
  if (i < p.earlier) {
    return keyOf(earlierValues[row * p.k + i]);
  }
  return keyOf(scores[row * p.columns + i - p.earlier]);
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
  let length = p.earlier + p.columns;
  if (thread == 0u) {
    left = p.k;
  }
  workgroupBarrier();
  var threshold = 0u;
  for (var shift = 32u; shift > 0u; shift -= 8u) {
    let known = select(0xffffffffu << (shift & 31u), 0u, shift == 32u);
    for (var i = thread; i < length; i += 256u) {
      let key = keyAt(row, i);
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
    for (var i = thread; i < length; i += 256u) {
      if (keyAt(row, i) == threshold && (~i & known) == lastIndex) {
        atomicAdd(&histogram[(~i >> (shift - 8u)) & 255u], 1u);
      }
    }
    pickDigit(thread);
    lastIndex |= workgroupUniformLoad(&digit) << (shift - 8u);
  }
  for (var i = thread; i < length; i += 256u) {
    let key = keyAt(row, i);
    if (key > threshold || (key == threshold && ~i >= lastIndex)) {
      let place = atomicAdd(&listed, 1u);
      if (place < p.k) {
        winners[row * p.k + place] = vec2u(key, i);
      }
    }
  }
}
