// parts[block] = (Σ grad², Σ param², Σ grad·param, 0) over one block of one segment.
// blocks[i] = (segment, first element / 4, elements, 0), made by the host; segments start at multiples of 64 elements.
// One workgroup a block; what lies between the end of a segment and the next is not looked at.
struct Params { blocks: u32, first: u32 } // of these blocks among all
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> grad: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> param: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> blocks: array<vec4u>;
@group(0) @binding(4) var<storage, read_write> parts: array<vec4f>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = groupIndex(group, groups);
  let block = blocks[min(index, p.blocks - 1u)];
  var gg = 0.0;
  var pp = 0.0;
  var gp = 0.0;
  for (var i = 4u * thread; i < block.z; i += 1024u) {
    let inside = before(i, block.z);
    let g = select(vec4f(), grad[block.y + i / 4u], inside);
    let w = select(vec4f(), param[block.y + i / 4u], inside);
    gg += dot(g, g);
    pp += dot(w, w);
    gp += dot(g, w);
  }
  gg = rowSum(gg, 0u, thread);
  pp = rowSum(pp, 0u, thread);
  gp = rowSum(gp, 0u, thread);
  if (thread == 0u && index < p.blocks) {
    parts[p.first + index] = vec4f(gg, pp, gp, 0.0);
  }
}
