// Kernels written on V work on four floats at a time with this file in front, and on one with scalar.wgsl.
alias V = vec4f;
alias VI = vec4i;
alias VU = vec4u;
const WIDTH = 4u;

fn total(v: V) -> f32 {
  return (v.x + v.y) + (v.z + v.w);
}

fn largest(v: V) -> f32 {
  return max(max(v.x, v.y), max(v.z, v.w));
}

fn first(v: V) -> f32 {
  return v.x;
}

fn anyOf(v: vec4<bool>) -> bool {
  return any(v);
}

// Which of the WIDTH elements from `start` on lie before `end`.
fn before(start: u32, end: u32) -> vec4<bool> {
  return vec4u(start, start + 1u, start + 2u, start + 3u) < vec4u(end);
}
