// Eight chains of vec4f multiply-adds an invocation, 256 rounds, four of them written out so that the loop does not count: arithmetic without memory.
@group(0) @binding(0) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let x = f32(id.x & 255u) * 0.001;
  let m = vec4f(0.999, 0.998, 0.997, 0.996);
  let b = vec4f(x, x + 0.1, x + 0.2, x + 0.3);
  var s0 = b; var s1 = b * 1.1; var s2 = b * 1.2; var s3 = b * 1.3;
  var s4 = b * 1.4; var s5 = b * 1.5; var s6 = b * 1.6; var s7 = b * 1.7;
  for (var i = 0u; i < 64u; i++) {
    s0 = fma(s0, m, b); s1 = fma(s1, m, b); s2 = fma(s2, m, b); s3 = fma(s3, m, b);
    s4 = fma(s4, m, b); s5 = fma(s5, m, b); s6 = fma(s6, m, b); s7 = fma(s7, m, b);
    s0 = fma(s0, m, b); s1 = fma(s1, m, b); s2 = fma(s2, m, b); s3 = fma(s3, m, b);
    s4 = fma(s4, m, b); s5 = fma(s5, m, b); s6 = fma(s6, m, b); s7 = fma(s7, m, b);
    s0 = fma(s0, m, b); s1 = fma(s1, m, b); s2 = fma(s2, m, b); s3 = fma(s3, m, b);
    s4 = fma(s4, m, b); s5 = fma(s5, m, b); s6 = fma(s6, m, b); s7 = fma(s7, m, b);
    s0 = fma(s0, m, b); s1 = fma(s1, m, b); s2 = fma(s2, m, b); s3 = fma(s3, m, b);
    s4 = fma(s4, m, b); s5 = fma(s5, m, b); s6 = fma(s6, m, b); s7 = fma(s7, m, b);
  }
  let s = s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7;
  y[id.x % arrayLength(&y)] = s.x + s.y + s.z + s.w;
}
