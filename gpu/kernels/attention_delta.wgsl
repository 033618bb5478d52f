// delta[b, h, i] = Σ over the head's columns of dy·y for query i; dy, y: [B·queries, H·width]. One thread a (b, h, i).
struct Params { count: u32, heads: u32, queries: u32, width: u32 } // width of a head, in V
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> dy: array<V>;
@group(0) @binding(2) var<storage, read_write> y: array<V>;
@group(0) @binding(3) var<storage, read_write> delta: array<f32>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let i = groupIndex(group, groups) * 256u + thread; // heads run fastest, so that neighbours read neighbouring memory
  if (i >= p.count) {
    return;
  }
  let head = i % p.heads;
  let row = i / p.heads;
  let start = i * p.width;
  var sum = V(0.0);
  for (var c = 0u; c < p.width; c++) {
    sum = fma(dy[start + c], y[start + c], sum);
  }
  delta[((row / p.queries) * p.heads + head) * p.queries + row % p.queries] = total(sum);
}
