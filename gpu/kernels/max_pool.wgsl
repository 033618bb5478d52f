// y[b, oy, ox, c] = the largest x of the window, tap = which pixel of the window it was, of equals the first; NaN wins.
// x [B, H, W, C], y and tap [B, outH, outW, C]. One thread an element of y.
struct Params {
  count: u32, C: u32, H: u32, W: u32, kernel: u32, outH: u32, outW: u32, stride: u32, padding: u32, withTap: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read_write> taps: array<i32>;

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
  let row = i / p.C;
  let b = row / (p.outW * p.outH);
  let top = row / p.outW % p.outH * p.stride;
  let left = row % p.outW * p.stride;
  var best = 0.0;
  var which = -1;
  for (var ky = 0u; ky < p.kernel; ky++) {
    let iy = top + ky - p.padding; // wraps to a large number above the image
    for (var kx = 0u; kx < p.kernel; kx++) {
      let ix = left + kx - p.padding;
      if (iy >= p.H || ix >= p.W) {
        continue;
      }
      let value = x[((b * p.H + iy) * p.W + ix) * p.C + c];
      if (which < 0 || value > best || (bitcast<u32>(value) & 0x7fffffffu) > 0x7f800000u) {
        best = value;
        which = i32(ky * p.kernel + kx);
      }
    }
  }
  y[i] = best;
  if (p.withTap != 0u) {
    taps[i] = which;
  }
}
