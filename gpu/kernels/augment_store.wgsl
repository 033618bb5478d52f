// The vertical blurs, then with v the byte of channel c, inverted from the threshold on:
// patch > 0: crops[cell, c, ky, kx] = levels[c, v] for whole patches; patch = 0: crops[crop, y, x, c] = v.
// One workgroup COLUMNS columns of a crop.
struct Params { crops: u32, height: u32, width: u32, strips: u32, patchSize: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> records: array<i32>;
@group(0) @binding(2) var<storage, read_write> image: array<u32>;
@group(0) @binding(3) var<storage, read_write> levels: array<f32>;
@group(0) @binding(4) var<storage, read_write> crops: array<f32>;

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = groupIndex(group, groups);
  let crop = index / p.strips;
  if (crop >= p.crops) {
    return;
  }
  let record = crop * RECORD_WORDS;
  let firstX = index % p.strips * COLUMNS;
  for (var at = thread; at < p.height * COLUMNS; at += THREADS) {
    let x = min(firstX + at % COLUMNS, p.width - 1u);
    lines[at] = image[(crop * p.height + at / COLUMNS) * p.width + x];
  }
  if (thread == 0u) {
    box = Box(u32(records[record + 19u]), u32(records[record + 20u]), u32(records[record + 21u]), u32(records[record + 22u]));
  }
  blurLines(p.height, thread);
  let threshold = u32(records[record + 23u]);
  for (var at = thread; at < p.height * COLUMNS; at += THREADS) {
    let x = firstX + at % COLUMNS;
    let y = at / COLUMNS;
    let bytes = bytesOf(lines[LINE * COLUMNS + at]);
    let v = select(vec3u(255u) - bytes, bytes, bytes < vec3u(threshold));
    if (p.patchSize == 0u) {
      if (x < p.width) {
        let first = ((crop * p.height + y) * p.width + x) * 3u;
        crops[first] = f32(v.x);
        crops[first + 1u] = f32(v.y);
        crops[first + 2u] = f32(v.z);
      }
    } else {
      let size = p.patchSize;
      let gridX = p.width / size;
      let gridY = p.height / size;
      if (x < gridX * size && y < gridY * size) {
        let cell = (crop * gridY + y / size) * gridX + x / size;
        let first = (cell * 3u * size + y % size) * size + x % size;
        crops[first] = levels[v.x];
        crops[first + size * size] = levels[256u + v.y];
        crops[first + 2u * size * size] = levels[512u + v.z];
      }
    }
  }
}
