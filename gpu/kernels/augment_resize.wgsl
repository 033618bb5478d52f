// image[crop, y, x] = (2²¹ + Σ_j wy[y, j]·((2²¹ + Σ_k wx[x, k]·pixels[j, k]) >> 22)) >> 22 for the three channels,
// each pass clamped to a byte; a pixel of image is R | G·2⁸ | B·2¹⁶. Also clears sums[crop].
// A workgroup makes 32 × 8 pixels: its rows of threads resample 8 source rows horizontally into shared memory, then
// every thread adds those its own output row needs, until the last row of the tile is served.
struct Params { crops: u32, height: u32, width: u32, tilesX: u32, tilesY: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> pixels: array<u32>;
@group(0) @binding(2) var<storage, read_write> records: array<i32>;
@group(0) @binding(3) var<storage, read_write> taps: array<i32>;
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
  let column = min(x, p.width - 1u);
  let startX = u32(taps[across + 2u * column]);
  let countX = u32(taps[across + 2u * column + 1u]);
  let weightsX = across + 2u * p.width + column * u32(records[record + 4u]);
  let row = min(y, p.height - 1u);
  let startY = taps[down + 2u * row];
  let endY = startY + taps[down + 2u * row + 1u];
  let weightsY = i32(down + 2u * p.height + row * u32(records[record + 6u]));

  if (thread.x == 0u && thread.y == 0u) {
    let last = min(firstY + 7u, p.height - 1u);
    range = vec2i(startY, taps[down + 2u * last] + taps[down + 2u * last + 1u]);
    if (tile % (p.tilesX * p.tilesY) == 0u) {
      sums[crop] = 0u;
    }
  }
  let rows = workgroupUniformLoad(&range);
  var sum = vec3i(1 << 21u);
  for (var base = rows.x; base < rows.y; base += 8) {
    let sourceRow = base + i32(thread.y);
    if (sourceRow < rows.y) {
      var part = vec3i(1 << 21u);
      var at = source + u32(sourceRow) * rowBytes + startX * 3u;
      for (var k = 0u; k < countX; k++) {
        let word = at >> 2u;
        let shift = (at & 3u) * 8u;
        let next = select(pixels[word + 1u] << ((32u - shift) & 31u), 0u, shift == 0u);
        part += channels((pixels[word] >> shift) | next) * taps[weightsX + k];
        at += 3u;
      }
      strip[thread.y * 32u + thread.x] = pack(part);
    }
    workgroupBarrier();
    let begin = max(startY, base);
    let end = min(endY, base + 8);
    for (var j = begin; j < end; j++) {
      sum += channels(strip[u32(j - base) * 32u + thread.x]) * taps[weightsY + j - startY];
    }
    workgroupBarrier();
  }
  if (x < p.width && y < p.height) {
    image[(crop * p.height + y) * p.width + x] = pack(sum);
  }
}
