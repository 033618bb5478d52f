// dpatches = dx without the leading tokens; dlead (+)= Σ_b dx[b, :L, :], or each image's own; dpos (+)= Σ_b dx[b].
// One thread an element of dpos, in V, which walks the images; first = L·D.
struct Params {
  count: u32, first: u32, images: u32, hasPatches: u32, hasLead: u32, hasPos: u32,
  leadPerImage: u32, accumulateLead: u32, accumulatePos: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> dx: array<V>;
@group(0) @binding(2) var<storage, read_write> dpatches: array<V>;
@group(0) @binding(3) var<storage, read_write> dlead: array<V>;
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
    if (i >= p.first) {
      if (p.hasPatches != 0u) {
        dpatches[b * (p.count - p.first) + i - p.first] = d;
      }
    } else if (p.hasLead != 0u && p.leadPerImage != 0u) {
      let at = b * p.first + i;
      if (p.accumulateLead != 0u) {
        dlead[at] += d;
      } else {
        dlead[at] = d;
      }
    }
  }
  if (p.hasPos != 0u) {
    if (p.accumulatePos != 0u) {
      dpos[i] += sum;
    } else {
      dpos[i] = sum;
    }
  }
  if (p.hasLead != 0u && p.leadPerImage == 0u && i < p.first) {
    if (p.accumulateLead != 0u) {
      dlead[i] += sum;
    } else {
      dlead[i] = sum;
    }
  }
}
