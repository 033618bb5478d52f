// image, in place: the adjustments not yet applied (all, or those from the contrast on), then the horizontal blurs.
// One workgroup a row of a crop.
struct Params { crops: u32, height: u32, width: u32, zero: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> records: array<i32>;
@group(0) @binding(2) var<storage, read_write> image: array<u32>;
@group(0) @binding(3) var<storage, read_write> sums: array<u32>;

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = groupIndex(group, groups);
  let crop = row / p.height;
  if (crop >= p.crops) {
    return;
  }
  let record = crop * RECORD_WORDS;
  let adjustments = records[record + 7u];
  let contrastAt = records[record + 8u];
  let begin = select(0, contrastAt, contrastAt < adjustments);
  let count = p.height * p.width;
  let mean = i32((sums[crop] + count / 2u) / count); // ⌊sum/count + ½⌋
  for (var x = thread; x < p.width; x += THREADS) {
    lines[x] = adjust(image[row * p.width + x], record, begin, adjustments, mean, p.zero);
  }
  if (thread == 0u) {
    box = Box(u32(records[record + 19u]), u32(records[record + 20u]), u32(records[record + 21u]), u32(records[record + 22u]));
  }
  blurLines(p.width, thread);
  for (var x = thread; x < p.width; x += THREADS) {
    image[row * p.width + x] = lines[LINE + x];
  }
}
