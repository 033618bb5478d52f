// Workgroup counts beyond 65535 are folded into two dimensions; this gives back the one number.
fn groupIndex(group: vec3u, groups: vec3u) -> u32 {
  return group.x + group.y * groups.x;
}
