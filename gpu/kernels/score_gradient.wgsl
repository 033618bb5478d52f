// With P = exp(scores·sharpness − lse): scores ← P and gradient ← P∘(gradient − delta)·scale, zeros in both from column `tokens` on.
// scores, gradient: [rows, columns], lse, delta: [rows] from `first` on. One thread an element.
struct Params { count: u32, columns: u32, tokens: u32, first: u32, sharpness: f32, scale: f32 }
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
  let row = p.first + i / p.columns;
  let probability = select(exponential1(scores[i] * p.sharpness - lse[row]), 0.0, i % p.columns >= p.tokens);
  scores[i] = probability;
  gradient[i] = probability * (gradient[i] - delta[row]) * p.scale;
}
