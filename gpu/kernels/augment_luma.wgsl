// For crops with a contrast adjustment: applies what comes before it to image, and adds up luma into sums[crop].
// A workgroup takes 4096 pixels of one crop. Integer sums do not depend on the order of the atomic additions.
struct Params { crops: u32, pixels: u32, chunks: u32, zero: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> records: array<i32>;
@group(0) @binding(2) var<storage, read_write> image: array<u32>;
@group(0) @binding(3) var<storage, read_write> sums: array<atomic<u32>>;

var<workgroup> total: atomic<u32>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = groupIndex(group, groups);
  let crop = index / p.chunks;
  if (crop >= p.crops) {
    return;
  }
  let record = crop * RECORD_WORDS;
  let contrastAt = records[record + 8u];
  let first = index % p.chunks * 4096u;
  let end = select(first, min(first + 4096u, p.pixels), contrastAt < records[record + 7u]);
  var sum = 0u;
  for (var i = first + thread; i < end; i += 256u) {
    let at = crop * p.pixels + i;
    let packed = adjust(image[at], record, 0, contrastAt, 0, p.zero);
    image[at] = packed;
    sum += packedLuma(packed);
  }
  atomicAdd(&total, sum); // workgroup memory starts at zero
  workgroupBarrier();
  if (thread == 0u) {
    atomicAdd(&sums[crop], atomicLoad(&total));
  }
}
