// Kernels written on V work on one float at a time with this file in front, and on four with vec4.wgsl.
alias V = f32;
alias VI = i32;
alias VU = u32;
const WIDTH = 1u;

fn total(v: V) -> f32 {
  return v;
}

fn largest(v: V) -> f32 {
  return v;
}

fn first(v: V) -> f32 {
  return v;
}

fn anyOf(v: bool) -> bool {
  return v;
}

// Which of the WIDTH elements from `start` on lie before `end`.
fn before(start: u32, end: u32) -> bool {
  return start < end;
}
