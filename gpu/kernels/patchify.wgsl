// patches[b, gy, gx][c, py, px] = image[b, c, gy·P + py, gx·P + px]; image [B, C, H, W]. One thread an element of patches.
struct Params { count: u32, channels: u32, height: u32, width: u32, side: u32, gridHeight: u32, gridWidth: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> image: array<f32>;
@group(0) @binding(2) var<storage, read_write> patches: array<f32>;

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
  let px = i % p.side;
  let py = i / p.side % p.side;
  let c = i / (p.side * p.side) % p.channels;
  let cell = i / (p.side * p.side * p.channels);
  let gx = cell % p.gridWidth;
  let gy = cell / p.gridWidth % p.gridHeight;
  let b = cell / (p.gridWidth * p.gridHeight);
  let y = gy * p.side + py;
  patches[i] = image[((b * p.channels + c) * p.height + y) * p.width + gx * p.side + px];
}
