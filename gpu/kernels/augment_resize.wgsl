// image[crop, y, x] = (2²¹ + Σ_j wy[y, j]·((2²¹ + Σ_k wx[x, k]·pixels[j, k]) >> 22)) >> 22 for the three channels,
// each pass clamped to a byte; a pixel of image is R | G·2⁸ | B·2¹⁶. Also clears sums[crop].
// A workgroup makes 32 × 8 pixels: its rows of threads resample 8 source rows horizontally into shared memory, then
// every thread adds those its own output row needs, until the last row of the tile is served.
struct Params { crops: u32, height: u32, width: u32, tilesX: u32, tilesY: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> pixels: array<u32>;
@group(0) @binding(2) var<storage, read_write> records: array<i32>;
@group(0) @binding(3) var<storage, read_write> taps: array<vec4i>;
@group(0) @binding(4) var<storage, read_write> image: array<u32>;
@group(0) @binding(5) var<storage, read_write> sums: array<u32>;

var<workgroup> strip: array<u32, 256>; // 8 source rows × 32 columns
var<workgroup> range: vec2i; // source rows of the tile

fn channels(packed: u32) -> vec3i {
  return vec3i(vec3u(packed, packed >> 8u, packed >> 16u) & vec3u(255u));
}

fn pack(sum: vec3i) -> u32 {
  let bytes = vec3u(clamp(sum >> vec3u(22u), vec3i(0), vec3i(255)));
  return bytes.x | (bytes.y << 8u) | (bytes.z << 16u);
}

// First source sample of an output sample, and one past its last.
fn span(axis: u32, i: u32) -> vec2i {
  let pair = taps[(axis + 2u * i) / 4u];
  let startAndCount = select(pair.xy, pair.zw, (i & 1u) == 1u);
  return vec2i(startAndCount.x, startAndCount.x + startAndCount.y);
}

// Where the weights of an output sample begin, in vectors.
fn weightRow(axis: u32, count: u32, i: u32, stride: u32) -> u32 {
  return (axis + ((2u * count + 3u) & ~3u) + i * stride) / 4u;
}

// Four bytes from `shift` bits into a pair of words.
fn joined(low: u32, high: u32, shift: u32) -> u32 {
  return (low >> shift) | select(high << (32u - shift), 0u, shift == 0u);
}

@compute @workgroup_size(32, 8)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_id) thread: vec3u,
) {
  let tile = groupIndex(group, groups);
  let crop = tile / (p.tilesX * p.tilesY);
  if (crop >= p.crops) {
    return;
  }
  let x = (tile % p.tilesX) * 32u + thread.x;
  let firstY = (tile / p.tilesX % p.tilesY) * 8u;
  let y = firstY + thread.y;
  let record = crop * RECORD_WORDS;
  let source = u32(records[record]);
  let rowBytes = u32(records[record + 1u]);
  let across = u32(records[record + 3u]);
  let down = u32(records[record + 5u]);

  // Threads beyond the edge repeat the last column or row, and store nothing.
  let spanX = span(across, min(x, p.width - 1u));
  let weightsX = weightRow(across, p.width, min(x, p.width - 1u), u32(records[record + 4u]));
  let spanY = span(down, min(y, p.height - 1u));
  let weightsY = weightRow(down, p.height, min(y, p.height - 1u), u32(records[record + 6u]));

  if (thread.x == 0u && thread.y == 0u) {
    range = vec2i(spanY.x, span(down, min(firstY + 7u, p.height - 1u)).y);
    if (tile % (p.tilesX * p.tilesY) == 0u) {
      sums[crop] = 0u;
    }
  }
  let rows = workgroupUniformLoad(&range);
  var sum = vec3i(1 << 21u);
  for (var base = rows.x; base < rows.y; base += 8) {
    let sourceRow = base + i32(thread.y);
    if (sourceRow < rows.y) {
      // Four pixels are three words, wherever in a word the first one starts. Weights past the last tap are 0.
      let at = source + u32(sourceRow) * rowBytes + u32(spanX.x) * 3u;
      let shift = (at & 3u) * 8u;
      var word = at >> 2u;
      var held = pixels[word];
      var part = vec3i(1 << 21u);
      for (var k = 0u; k < u32(spanX.y - spanX.x); k += 4u) {
        let b = pixels[word + 1u];
        let c = pixels[word + 2u];
        let d = pixels[word + 3u];
        let w0 = joined(held, b, shift);
        let w1 = joined(b, c, shift);
        let w2 = joined(c, d, shift);
        let weight = taps[weightsX + k / 4u];
        part += channels(w0) * weight.x + channels((w0 >> 24u) | (w1 << 8u)) * weight.y +
          channels((w1 >> 16u) | (w2 << 16u)) * weight.z + channels(w2 >> 8u) * weight.w;
        held = d;
        word += 3u;
      }
      strip[thread.y * 32u + thread.x] = pack(part);
    }
    workgroupBarrier();
    let begin = max(spanY.x, base);
    let end = min(spanY.y, base + 8);
    for (var j = begin; j < end; j++) {
      let k = u32(j - spanY.x);
      sum += channels(strip[u32(j - base) * 32u + thread.x]) * taps[weightsY + k / 4u][k % 4u];
    }
    workgroupBarrier();
  }
  if (x < p.width && y < p.height) {
    image[(crop * p.height + y) * p.width + x] = pack(sum);
  }
}
