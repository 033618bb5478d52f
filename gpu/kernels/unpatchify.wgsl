// The inverse of patchify: image[b, c, y, x] from patches; pixels beyond the last whole patch become 0. One thread a pixel.
struct Params { count: u32, channels: u32, height: u32, width: u32, side: u32, gridHeight: u32, gridWidth: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> patches: array<f32>;
@group(0) @binding(2) var<storage, read_write> image: array<f32>;

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
  let x = i % p.width;
  let y = i / p.width % p.height;
  let c = i / (p.width * p.height) % p.channels;
  let b = i / (p.width * p.height * p.channels);
  let gx = x / p.side;
  let gy = y / p.side;
  var value = 0.0;
  if (gx < p.gridWidth && gy < p.gridHeight) {
    let cell = (b * p.gridHeight + gy) * p.gridWidth + gx;
    value = patches[((cell * p.channels + c) * p.side + y % p.side) * p.side + x % p.side];
  }
  image[i] = value;
}
