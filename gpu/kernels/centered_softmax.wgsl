// probs[r, :] = softmax((logits[r, :] − center) / temperature[0]); entropy[r] = −Σ probs·log probs.
// logits, probs: [rows, K], K in V; probs may be logits. One workgroup a row (LANES = 256): one pass finds the maximum and the sum
// online, one writes; K = 65536 is 256 KB a row, so the second pass reads from cache.
struct Params { rows: u32, columns: u32, hasEntropy: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> logits: array<V>;
@group(0) @binding(2) var<storage, read_write> center: array<V>;
@group(0) @binding(3) var<storage, read_write> temperature: array<f32>;
@group(0) @binding(4) var<storage, read_write> probs: array<V>;
@group(0) @binding(5) var<storage, read_write> entropy: array<f32>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = groupIndex(group, groups);
  let start = row * p.columns;
  let columns = select(0u, p.columns, row < p.rows);
  let sharpness = 1.0 / temperature[0];
  var most = V(LOWEST);
  var sum = V(0.0);
  for (var c = thread; c < columns; c += 256u) {
    let z = (logits[start + c] - center[c]) * sharpness;
    if (anyOf(z > most)) {
      let higher = max(most, z);
      sum *= exponential(most - higher);
      most = higher;
    }
    sum += exponential(z - most);
  }
  let top = rowMax(largest(most), 0u, thread);
  let mass = rowSum(total(sum * exponential(most - V(top))), 0u, thread);
  var weighted = V(0.0);
  for (var c = thread; c < columns; c += 256u) {
    let z = (logits[start + c] - center[c]) * sharpness - top;
    let q = exponential(z) / mass;
    probs[start + c] = q;
    weighted = fma(q, z, weighted);
  }
  if (p.hasEntropy != 0u) {
    let mean = rowSum(total(weighted), 0u, thread);
    if (thread == 0u && row < p.rows) {
      entropy[row] = logarithm1(mass) - mean;
    }
  }
}
