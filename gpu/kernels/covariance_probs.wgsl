// probs[b, h, i, :] = softmax(temperature·cosines[b, h, i, :]). One thread a row of d.
struct Params { count: u32, d: u32, H: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> cosines: array<f32>;
@group(0) @binding(2) var<storage, read_write> temperature: array<f32>;
@group(0) @binding(3) var<storage, read_write> probs: array<f32>;

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
  let t = temperature[i / p.d % p.H];
  let begin = i * p.d;
  var largest = t * cosines[begin];
  for (var j = 1u; j < p.d; j++) {
    largest = max(largest, t * cosines[begin + j]);
  }
  var sum = 0.0;
  for (var j = 0u; j < p.d; j++) {
    let e = exp(t * cosines[begin + j] - largest);
    probs[begin + j] = e;
    sum += e;
  }
  for (var j = 0u; j < p.d; j++) {
    probs[begin + j] = probs[begin + j] / sum;
  }
}
