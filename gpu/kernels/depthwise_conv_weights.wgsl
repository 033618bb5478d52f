// parts[chunk, tap, c] = Σ dy[pixel, c]·x[pixel of the tap, c] over a chunk of pixels; rows of parts are summed afterwards.
// One thread an element of parts.
struct Params { count: u32, C: u32, H: u32, W: u32, k: u32, pixels: u32, perChunk: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> parts: array<f32>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let i = groupIndex(group, groups) * 256u + thread;
  if (i >= p.count) {
    return;
  }
  let c = i % p.C;
  let taps = p.k * p.k;
  let tap = i / p.C % taps;
  let chunk = i / (p.C * taps);
  let reach = (i32(p.k) - 1) / 2;
  let down = i32(tap / p.k) - reach;
  let right = i32(tap % p.k) - reach;
  let end = min((chunk + 1u) * p.perChunk, p.pixels);
  var sum = 0.0;
  for (var pixel = chunk * p.perChunk; pixel < end; pixel++) {
    let ix = i32(pixel % p.W) + right;
    let iy = i32(pixel / p.W % p.H) + down;
    if (iy < 0 || iy >= i32(p.H) || ix < 0 || ix >= i32(p.W)) {
      continue;
    }
    let at = u32(i32(pixel) + down * i32(p.W) + right);
    sum += dy[pixel * p.C + c] * x[at * p.C + c];
  }
  parts[i] = sum;
}
