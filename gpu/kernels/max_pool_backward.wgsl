// dx[b, iy, ix, c] (+)= Σ dy over the windows whose largest was this pixel. dx [B, H, W, C], dy and tap [B, outH, outW, C].
// One thread an element of dx.
struct Params {
  count: u32, C: u32, H: u32, W: u32, kernel: u32, outH: u32, outW: u32, stride: u32, padding: u32, accumulate: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> taps: array<i32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

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
  let b = pixel / (p.W * p.H);
  let y = pixel / p.W % p.H + p.padding;
  let across = pixel % p.W + p.padding;
  var sum = 0.0;
  if (p.accumulate != 0u) {
    sum = dx[i];
  }
  for (var ky = 0u; ky < p.kernel; ky++) {
    let oy = (y - ky) / p.stride;
    if (ky > y || oy * p.stride != y - ky || oy >= p.outH) {
      continue;
    }
    for (var kx = 0u; kx < p.kernel; kx++) {
      let ox = (across - kx) / p.stride;
      if (kx > across || ox * p.stride != across - kx || ox >= p.outW) {
        continue;
      }
      let at = ((b * p.outH + oy) * p.outW + ox) * p.C + c;
      if (taps[at] == i32(ky * p.kernel + kx)) {
        sum += dy[at];
      }
    }
  }
  dx[i] = sum;
}
