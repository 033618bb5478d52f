// y[b, oy, ox, c] (+)= bias[c] + Σ weight[c, ky, kx]·x[b, oy + ky − r, ox + kx − r, c], 0 outside the image. One thread an element of y.
struct Params { count: u32, C: u32, H: u32, W: u32, k: u32, flipped: u32, hasBias: u32, accumulate: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

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
  let pixel = i / p.C;
  let ox = i32(pixel % p.W);
  let oy = i32(pixel / p.W % p.H);
  let reach = (i32(p.k) - 1) / 2;
  let taps = p.k * p.k;
  var sum = 0.0;
  if (p.hasBias != 0u) {
    sum = bias[c];
  }
  for (var tap = 0u; tap < taps; tap++) {
    let dy = i32(tap / p.k) - reach;
    let dx = i32(tap % p.k) - reach;
    if (oy + dy < 0 || oy + dy >= i32(p.H) || ox + dx < 0 || ox + dx >= i32(p.W)) {
      continue;
    }
    let at = u32(i32(pixel) + dy * i32(p.W) + dx);
    let w = weight[c * taps + select(tap, taps - 1u - tap, p.flipped != 0u)];
    sum += w * x[at * p.C + c];
  }
  if (p.accumulate != 0u) {
    sum += y[i];
  }
  y[i] = sum;
}
