// columns[row − first, tap, c] = x[b, oy·stride + ky − padding, ox·stride + kx − padding, c], 0 outside; row = (b, oy, ox), tap = (ky, kx).
// x [B, H, W, C], columns [rows, taps, C]; count and C are in V. One thread a V of columns.
struct Params {
  count: u32, first: u32, C: u32, H: u32, W: u32, taps: u32, kw: u32, outH: u32, outW: u32, stride: u32, padding: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<V>;
@group(0) @binding(2) var<storage, read_write> columns: array<V>;

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
  let tap = i / p.C % p.taps;
  let row = p.first + i / (p.C * p.taps);
  // Coordinates left of the image wrap to large numbers, and fail the same comparison.
  let iy = row / p.outW % p.outH * p.stride + tap / p.kw - p.padding;
  let ix = row % p.outW * p.stride + tap % p.kw - p.padding;
  var value = V(0.0);
  if (iy < p.H && ix < p.W) {
    let b = row / (p.outW * p.outH);
    value = x[((b * p.H + iy) * p.W + ix) * p.C + c];
  }
  columns[i] = value;
}
