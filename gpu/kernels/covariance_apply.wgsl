// y[n, i] = Σ_j probs[b, h, i, j]·v[n, j], heads side by side. One thread an element of y.
struct Params { count: u32, d: u32, H: u32, N: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> probs: array<f32>;
@group(0) @binding(2) var<storage, read_write> qkv: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

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
  let D = p.H * p.d;
  let column = i % D;
  let token = i / D;
  let head = column / p.d;
  let row = (((token / p.N) * p.H + head) * p.d + column % p.d) * p.d;
  let v = token * 3u * D + 2u * D + head * p.d;
  var sum = 0.0;
  for (var j = 0u; j < p.d; j++) {
    sum += probs[row + j] * qkv[v + j];
  }
  y[i] = sum;
}
