// With P = exp(scores − lse): scores ← P and gradient ← P∘(gradient − delta)·scale. scores, gradient: [rows, columns],
// lse, delta: [rows]. One thread an element.
struct Params { count: u32, columns: u32, scale: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> scores: array<f32>;
@group(0) @binding(2) var<storage, read_write> gradient: array<f32>;
@group(0) @binding(3) var<storage, read_write> lse: array<f32>;
@group(0) @binding(4) var<storage, read_write> delta: array<f32>;

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
  let row = i / p.columns;
  let probability = exponential1(scores[i] - lse[row]);
  scores[i] = probability;
  gradient[i] = probability * (gradient[i] - delta[row]) * p.scale;
}
