// Three box blurs of a line in shared memory: 2·radius + 1 samples weigh `inner`, one more on each side `outer`, in
// 2⁻²⁴; each pass is rounded to bytes, edges are repeated. COLUMNS lines of up to LINE pixels lie interleaved.
// Integers below 2³² throughout, hence exact.
struct Box { blurred: u32, radius: u32, inner: u32, outer: u32 }

var<workgroup> lines: array<u32, 2u * LINE * COLUMNS>;
var<workgroup> box: Box;

// Every thread blurs the samples thread, thread + THREADS, …; the result lies in the second half of `lines`.
fn blurLines(length: u32, thread: u32) {
  let weights = workgroupUniformLoad(&box);
  let passes = select(0u, 3u, weights.blurred != 0u);
  for (var turn = 0u; turn < passes; turn++) {
    let source = (turn & 1u) * LINE * COLUMNS;
    let destination = LINE * COLUMNS - source;
    for (var at = thread; at < length * COLUMNS; at += THREADS) {
      let column = at % COLUMNS;
      let i = i32(at / COLUMNS);
      let r = i32(weights.radius);
      let last = i32(length) - 1;
      var sum = vec3u(0u);
      for (var k = i - r; k <= i + r; k++) {
        sum += bytesOf(lines[source + u32(clamp(k, 0, last)) * COLUMNS + column]);
      }
      let edges = bytesOf(lines[source + u32(max(i - r - 1, 0)) * COLUMNS + column]) +
        bytesOf(lines[source + u32(min(i + r + 1, last)) * COLUMNS + column]);
      let blurred = (sum * weights.inner + edges * weights.outer + vec3u(1u << 23u)) >> vec3u(24u);
      lines[destination + at] = blurred.x | (blurred.y << 8u) | (blurred.z << 16u);
    }
    workgroupBarrier();
  }
  if (passes == 0u) {
    for (var at = thread; at < length * COLUMNS; at += THREADS) {
      lines[LINE * COLUMNS + at] = lines[at];
    }
    workgroupBarrier();
  }
}

fn bytesOf(packed: u32) -> vec3u {
  return vec3u(packed, packed >> 8u, packed >> 16u) & vec3u(255u);
}
