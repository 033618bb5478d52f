// shares[b, h, 0, i] = Σ_j dC∘cosines / |qᵢ|² and shares[b, h, 1, j] = Σ_i dC∘cosines / |kⱼ|², with dC[i, j] = a[i, j]·|qᵢ|·|kⱼ|.
// One thread an element of shares.
struct Params { count: u32, d: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> a: array<f32>;
@group(0) @binding(2) var<storage, read_write> cosines: array<f32>;
@group(0) @binding(3) var<storage, read_write> norms: array<f32>;
@group(0) @binding(4) var<storage, read_write> shares: array<f32>;

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
  let at = i % p.d;
  let ofK = i / p.d % 2u;
  let pair = i / (2u * p.d);
  let own = norms[i];
  var sum = 0.0;
  for (var m = 0u; m < p.d; m++) {
    let element = pair * p.d * p.d + select(at * p.d + m, m * p.d + at, ofK != 0u);
    sum += a[element] * cosines[element] * norms[(2u * pair + 1u - ofK) * p.d + m];
  }
  shares[i] = sum / own;
}
