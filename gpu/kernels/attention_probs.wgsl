// probs[b, h, i, :] = softmax over the keys of q·kᵀ/√d for query token firstQuery + i; qkv [B·N, 3·D], probs [B, H, queries, N].
// One workgroup a query: its threads stride the keys, leave scores in probs, and then normalise them.
struct Params { count: u32, tokens: u32, heads: u32, queries: u32, firstQuery: u32, width: u32, scale: f32 } // width of a head
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> qkv: array<f32>;
@group(0) @binding(2) var<storage, read_write> probs: array<f32>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = groupIndex(group, groups);
  let query = index % p.queries;
  let head = index / p.queries % p.heads;
  let image = index / (p.queries * p.heads);
  let pitch = 3u * p.heads * p.width;
  let q = (image * p.tokens + p.firstQuery + query) * pitch + head * p.width;
  let keys = select(0u, p.tokens, index < p.count);
  var most = LOWEST;
  for (var key = thread; key < keys; key += 256u) {
    let k = (image * p.tokens + key) * pitch + (p.heads + head) * p.width;
    var dot = 0.0;
    for (var c = 0u; c < p.width; c++) {
      dot = fma(qkv[q + c], qkv[k + c], dot);
    }
    dot *= p.scale;
    probs[index * p.tokens + key] = dot;
    most = max(most, dot);
  }
  let top = rowMax(most, 0u, thread);
  var sum = 0.0;
  for (var key = thread; key < keys; key += 256u) {
    let e = exponential1(probs[index * p.tokens + key] - top);
    probs[index * p.tokens + key] = e;
    sum += e;
  }
  let mass = rowSum(sum, 0u, thread);
  for (var key = thread; key < keys; key += 256u) {
    probs[index * p.tokens + key] /= mass;
  }
}
