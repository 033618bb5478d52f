// Of each segment what its update needs, once and not for every element: clip factor, LARS trust ratio, rates. One thread a segment.
// coefficients[s] = (method's factor on grad, lr, weight decay, flags) and (lr/bc₁, 1/√bc₂, λ, trust); flags: 1 active, 2 first update, 4 adapt, 8 frozen.
struct Params { count: u32, hasFrozen: u32, hasTeacher: u32, eta: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> norms: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> groupTable: array<f32>;
@group(0) @binding(3) var<storage, read_write> segments: array<vec4i>;
@group(0) @binding(4) var<storage, read_write> teacherMomentum: array<f32>;
@group(0) @binding(5) var<storage, read_write> frozen: array<f32>;
@group(0) @binding(6) var<storage, read_write> coefficients: array<vec4f>;

const CLIP_EPS = 1e-6f; // keeps the clip factor finite for a zero gradient, as the reference does

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
  let row = u32(segments[i].z) * 8u;
  let lr = groupTable[row];
  let decay = groupTable[row + 1u];
  let clip = groupTable[row + 4u];
  let n = norms[i];
  var factor = 1.0;
  if (clip > 0.0) {
    factor = min(1.0, clip / (sqrt(n.x) + CLIP_EPS));
  }
  let adapt = groupTable[row + 7u] != 0.0;
  let decayed = factor * factor * n.x + 2.0 * factor * decay * n.z + decay * decay * n.y; // ‖factor·g + decay·p‖²
  var trust = 1.0;
  if (adapt && n.y > 0.0 && decayed > 0.0) {
    trust = p.eta * sqrt(n.y) / sqrt(decayed);
  }
  var flags = select(0u, 1u, groupTable[row + 5u] != 0.0);
  flags |= select(0u, 2u, groupTable[row + 6u] != 0.0);
  flags |= select(0u, 4u, adapt);
  if (p.hasFrozen != 0u && frozen[0] != 0.0) {
    flags |= 8u;
  }
  var lambda = 0.0;
  if (p.hasTeacher != 0u) {
    lambda = teacherMomentum[0];
  }
  coefficients[2u * i] = vec4f(factor, lr, decay, f32(flags));
  coefficients[2u * i + 1u] = vec4f(lr / groupTable[row + 2u], 1.0 / sqrt(groupTable[row + 3u]), lambda, trust);
}
