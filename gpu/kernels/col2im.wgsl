// x[b, iy, ix, c] (+)= Σ columns[row, tap, c] over the windows that hold the pixel as their tap, in the order of the taps.
// x [B, H, W, C] from pixel `first` on, columns [rows, taps, C] from the first window of that image on; count and C are in V. One thread a V of x.
struct Params {
  count: u32, first: u32, C: u32, H: u32, W: u32, kh: u32, kw: u32, outH: u32, outW: u32, stride: u32, padding: u32,
  accumulate: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> columns: array<V>;
@group(0) @binding(2) var<storage, read_write> x: array<V>;

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
  let at = p.first * p.C + i;
  var sum = V(0.0);
  if (p.accumulate != 0u) {
    sum = x[at];
  }
  for (var ky = 0u; ky < p.kh; ky++) {
    let oy = (y - ky) / p.stride;
    if (ky > y || oy * p.stride != y - ky || oy >= p.outH) {
      continue;
    }
    for (var kx = 0u; kx < p.kw; kx++) {
      let ox = (across - kx) / p.stride;
      if (kx > across || ox * p.stride != across - kx || ox >= p.outW) {
        continue;
      }
      let row = (b * p.outH + oy) * p.outW + ox;
      sum += columns[((row * p.kh + ky) * p.kw + kx) * p.C + c];
    }
  }
  x[at] = sum;
}
