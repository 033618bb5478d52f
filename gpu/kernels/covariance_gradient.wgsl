// dq[n, i] = Σ_j a[i, j]·k[n, j] − shares[0, i]·q[n, i], dk[n, j] = Σ_i a[i, j]·q[n, i] − shares[1, j]·k[n, j],
// dv[n, j] = Σ_i probs[i, j]·dy[n, i]. One thread an element of dqkv [B·N, 3·D].
struct Params { count: u32, d: u32, H: u32, N: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> qkv: array<f32>;
@group(0) @binding(3) var<storage, read_write> a: array<f32>;
@group(0) @binding(4) var<storage, read_write> probs: array<f32>;
@group(0) @binding(5) var<storage, read_write> shares: array<f32>;
@group(0) @binding(6) var<storage, read_write> dqkv: array<f32>;

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
  let which = i / D % 3u;
  let token = i / (3u * D);
  let head = column / p.d;
  let at = column % p.d;
  let pair = (token / p.N) * p.H + head;
  let matrix = pair * p.d * p.d;
  let q = token * 3u * D + head * p.d;
  var sum = 0.0;
  if (which == 0u) {
    for (var m = 0u; m < p.d; m++) {
      sum += a[matrix + at * p.d + m] * qkv[q + D + m];
    }
  } else if (which == 1u) {
    for (var m = 0u; m < p.d; m++) {
      sum += a[matrix + m * p.d + at] * qkv[q + m];
    }
  } else {
    let begin = token * D + head * p.d;
    for (var m = 0u; m < p.d; m++) {
      sum += probs[matrix + m * p.d + at] * dy[begin + m];
    }
  }
  if (which < 2u) {
    sum -= shares[(2u * pair + which) * p.d + at] * qkv[i];
  }
  dqkv[i] = sum;
}
