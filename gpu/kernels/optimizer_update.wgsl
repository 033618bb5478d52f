// One update of every element of a block of a segment, and of the EMA teacher with the new parameter:
// AdamW (METHOD 0): p ·= 1 − lr·wd; m = β₁m + (1−β₁)g; v = β₂v + (1−β₂)g²; p −= lr/bc₁·m / (√v/√bc₂ + eps);
// SGD (1): g += wd·p; m = first ? g : μ·m + g; p −= lr·m; LARS (2): where adapt, g = (g + wd·p)·trust; m = μ·m + g; p −= lr·m.
// blocks[i] = (segment, first element / 4, elements, 0); one workgroup a block, one thread four elements at a time.
// Padding behind a segment is written back as it was.
struct Params {
  blocks: u32, hasTeacher: u32,
  beta1: f32, rest1: f32, beta2: f32, rest2: f32, eps: f32, momentum: f32, // rest = 1 − β
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> param: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> grad: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> firstMoment: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> secondMoment: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> teacher: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> coefficients: array<vec4f>;
@group(0) @binding(7) var<storage, read_write> blocks: array<vec4u>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = groupIndex(group, groups);
  if (index >= p.blocks) {
    return;
  }
  let block = blocks[index];
  let c = coefficients[2u * block.x];
  let d = coefficients[2u * block.x + 1u];
  let flags = u32(c.w);
  if ((flags & 8u) != 0u) {
    return;
  }
  for (var i = 4u * thread; i < block.z; i += 1024u) {
    let at = block.y + i / 4u;
    let inside = before(i, block.z);
    let old = param[at];
    var w = old;
    if ((flags & 1u) != 0u) {
      var g = grad[at] * c.x;
      let oldFirst = firstMoment[at];
      var m: vec4f;
      if (METHOD == 0u) {
        let oldSecond = secondMoment[at];
        w *= 1.0 - c.y * c.z;
        m = p.beta1 * oldFirst + p.rest1 * g;
        let v = p.beta2 * oldSecond + p.rest2 * g * g;
        w -= d.x * m / (sqrt(v) * d.y + p.eps);
        secondMoment[at] = select(oldSecond, v, inside);
      } else {
        if (METHOD == 1u) {
          g += c.z * w;
        } else if ((flags & 4u) != 0u) {
          g = (g + c.z * w) * d.w;
        }
        m = p.momentum * oldFirst + g;
        if (METHOD == 1u && (flags & 2u) != 0u) {
          m = g;
        }
        w -= c.y * m;
      }
      firstMoment[at] = select(oldFirst, m, inside);
      param[at] = select(old, w, inside);
    }
    if (p.hasTeacher != 0u) {
      let t = teacher[at];
      teacher[at] = select(t, d.z * t + (1.0 - d.z) * w, inside);
    }
  }
}
