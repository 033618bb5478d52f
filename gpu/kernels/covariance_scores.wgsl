// Per row i of a head, dS = P∘(dP − Σ P∘dP): a = temperature·dS/(|qᵢ|·|kⱼ|), in place of dP; warmth[h, b, i] = Σ_j dS·cosines.
// One thread a row of d.
struct Params { count: u32, d: u32, H: u32, images: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> probs: array<f32>;
@group(0) @binding(2) var<storage, read_write> a: array<f32>;
@group(0) @binding(3) var<storage, read_write> cosines: array<f32>;
@group(0) @binding(4) var<storage, read_write> norms: array<f32>;
@group(0) @binding(5) var<storage, read_write> temperature: array<f32>;
@group(0) @binding(6) var<storage, read_write> warmth: array<f32>;

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
  let row = i % p.d;
  let pair = i / p.d;
  let head = pair % p.H;
  let begin = i * p.d;
  var mean = 0.0;
  for (var j = 0u; j < p.d; j++) {
    mean += probs[begin + j] * a[begin + j];
  }
  let t = temperature[head];
  let normQ = norms[2u * pair * p.d + row];
  var sum = 0.0;
  for (var j = 0u; j < p.d; j++) {
    let ds = probs[begin + j] * (a[begin + j] - mean);
    sum += ds * cosines[begin + j];
    a[begin + j] = t * ds / (normQ * norms[(2u * pair + 1u) * p.d + j]);
  }
  warmth[(head * p.images + pair / p.H) * p.d + row] = sum;
}
