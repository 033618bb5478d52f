// sums[b, h, i, j] = Σ_n a[n, i]·v[n, j] in each head, where a is q (or dy) and v is k (or v) of qkv: part `second` of a row of qkv,
// and part 0 of a row of `left`, which is `leftStride` long. With norms: cosines, and |qᵢ| and |kⱼ| into norms. One thread an element.
struct Params { count: u32, d: u32, H: u32, N: u32, leftStride: u32, second: u32, hasNorms: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> left: array<f32>;
@group(0) @binding(2) var<storage, read_write> qkv: array<f32>;
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;
@group(0) @binding(4) var<storage, read_write> norms: array<f32>;

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
  let j = i % p.d;
  let row = i / p.d % p.d;
  let pair = i / (p.d * p.d);
  let head = pair % p.H;
  let image = pair / p.H;
  let D = p.H * p.d;
  var a = image * p.N * p.leftStride + head * p.d + row;
  var v = image * p.N * 3u * D + p.second * D + head * p.d + j;
  var sum = 0.0;
  var ofA = 0.0;
  var ofV = 0.0;
  for (var n = 0u; n < p.N; n++) {
    let x = left[a];
    let y = qkv[v];
    sum += x * y;
    ofA += x * x;
    ofV += y * y;
    a += p.leftStride;
    v += 3u * D;
  }
  if (p.hasNorms != 0u) {
    let normQ = max(sqrt(ofA), 1e-12);
    let normK = max(sqrt(ofV), 1e-12);
    sum = sum / (normQ * normK);
    if (j == 0u) {
      norms[2u * pair * p.d + row] = normQ;
    }
    if (row == 0u) {
      norms[(2u * pair + 1u) * p.d + j] = normK;
    }
  }
  sums[i] = sum;
}
