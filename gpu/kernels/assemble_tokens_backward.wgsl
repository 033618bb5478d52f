// dpatches = dx without the first token; dcls (+)= Σ_b dx[b, 0, :]; dpos (+)= Σ_b dx[b]. One thread an element of dpos, in V, which walks the images.
struct Params {
  count: u32, columns: u32, images: u32, hasPatches: u32, hasCls: u32, hasPos: u32, accumulateCls: u32, accumulatePos: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> dx: array<V>;
@group(0) @binding(2) var<storage, read_write> dpatches: array<V>;
@group(0) @binding(3) var<storage, read_write> dcls: array<V>;
@group(0) @binding(4) var<storage, read_write> dpos: array<V>;

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
  var sum = V(0.0);
  for (var b = 0u; b < p.images; b++) {
    let d = dx[b * p.count + i];
    sum += d;
    if (p.hasPatches != 0u && i >= p.columns) {
      dpatches[b * (p.count - p.columns) + i - p.columns] = d;
    }
  }
  if (p.hasPos != 0u) {
    if (p.accumulatePos != 0u) {
      dpos[i] += sum;
    } else {
      dpos[i] = sum;
    }
  }
  if (p.hasCls != 0u && i < p.columns) {
    if (p.accumulateCls != 0u) {
      dcls[i] += sum;
    } else {
      dcls[i] = sum;
    }
  }
}
