// parts[chunk, c] = Σ rowScale·x[r, c]·dy[r, c] over a chunk of rows; rows of parts are summed afterwards. One thread a V of parts;
// count and columns are in V.
struct Params { count: u32, columns: u32, rows: u32, perChunk: u32, rowsPerScale: u32, hasScale: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> dy: array<V>;
@group(0) @binding(2) var<storage, read_write> x: array<V>;
@group(0) @binding(3) var<storage, read_write> rowScale: array<f32>;
@group(0) @binding(4) var<storage, read_write> parts: array<V>;

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
  let c = i % p.columns;
  let chunk = i / p.columns;
  let end = min((chunk + 1u) * p.perChunk, p.rows);
  var sum = V(0.0);
  for (var r = chunk * p.perChunk; r < end; r++) {
    var product = dy[r * p.columns + c] * x[r * p.columns + c];
    if (p.hasScale != 0u) {
      product = rowScale[r / p.rowsPerScale] * product;
    }
    sum += product;
  }
  parts[i] = sum;
}
