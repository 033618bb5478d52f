// For the student row of view v, image b, with t = Σ_{g ≠ v} probs[g, b, :] over n teacher views and s = student/τ:
// losses[row] = n·logsumexp(s) − Σ t·s; dlogits[row, :] = gradientScale·(n·softmax(s) − t)/τ.
// student, dlogits: [views·images, K], of views from firstView on; probs: [globals·images, K]; K in V; dlogits may be student.
// One workgroup a row (LANES = 256): one pass for maximum and sum, one for loss and gradient, which reads from cache.
struct Params {
  rows: u32, columns: u32, images: u32, globals: u32, hasGradient: u32, firstView: u32, firstLoss: u32,
  sharpness: f32, gradientScale: f32, // 1/τ, and gradientScale/τ
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> student: array<V>;
@group(0) @binding(2) var<storage, read_write> probs: array<V>;
@group(0) @binding(3) var<storage, read_write> dlogits: array<V>;
@group(0) @binding(4) var<storage, read_write> losses: array<f32>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = groupIndex(group, groups);
  let view = p.firstView + row / p.images;
  let image = row % p.images;
  let start = row * p.columns;
  let columns = select(0u, p.columns, row < p.rows);
  var most = V(LOWEST);
  var sum = V(0.0);
  for (var c = thread; c < columns; c += 256u) {
    let s = student[start + c] * p.sharpness;
    if (anyOf(s > most)) {
      let higher = max(most, s);
      sum *= exponential(most - higher);
      most = higher;
    }
    sum += exponential(s - most);
  }
  let top = rowMax(largest(most), 0u, thread);
  let mass = rowSum(total(sum * exponential(most - V(top))), 0u, thread);
  let n = f32(p.globals - select(0u, 1u, view < p.globals));
  var agreement = V(0.0);
  var mixture = V(0.0);
  for (var c = thread; c < columns; c += 256u) {
    var t = V(0.0);
    for (var g = 0u; g < p.globals; g++) {
      if (g != view) { // the same view on both sides teaches nothing
        t += probs[(g * p.images + image) * p.columns + c];
      }
    }
    let s = student[start + c] * p.sharpness - top;
    agreement = fma(t, s, agreement);
    mixture += t;
    if (p.hasGradient != 0u) {
      dlogits[start + c] = p.gradientScale * (n * exponential(s) / mass - t);
    }
  }
  // The maximum was taken out of both terms; it cancels as far as Σ t is n.
  let rest = n - rowSum(total(mixture), 0u, thread);
  let loss = n * logarithm1(mass) - rowSum(total(agreement), 0u, thread) + top * rest;
  if (thread == 0u && row < p.rows) {
    losses[p.firstLoss + row] = loss;
  }
}
