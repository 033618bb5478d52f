// y = x as 32-bit words of any type; of the last word only the bytes in `lastMask`. One thread a word.
struct Params { words: u32, lastMask: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let i = groupIndex(group, groups) * 256u + thread;
  if (i >= p.words) {
    return;
  }
  let mask = select(0xffffffffu, p.lastMask, i == p.words - 1u);
  y[i] = (y[i] & ~mask) | (x[i] & mask);
}
