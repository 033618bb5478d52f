// values, indices [Q, k]: the winners that top_k.wgsl listed, in order. One thread a winner: how many beat it is its place.
struct Params { count: u32, columns: u32, k: u32, earlier: u32, first: u32 } // count = Q·k; earlier = k if there are earlier winners, else 0
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> scores: array<u32>; // bits of f32
@group(0) @binding(2) var<storage, read_write> earlierValues: array<u32>;
@group(0) @binding(3) var<storage, read_write> earlierIndices: array<i32>;
@group(0) @binding(4) var<storage, read_write> winners: array<vec2u>; // [Q, k]: key and place in the row
@group(0) @binding(5) var<storage, read_write> values: array<u32>;
@group(0) @binding(6) var<storage, read_write> indices: array<i32>;

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
  let row = i / p.k;
  let mine = winners[i];
  var place = row * p.k;
  for (var j = row * p.k; j < (row + 1u) * p.k; j++) {
    let other = winners[j];
    if (other.x > mine.x || (other.x == mine.x && other.y < mine.y)) {
      place++;
    }
  }
  if (mine.y < p.earlier) {
    values[place] = earlierValues[row * p.k + mine.y];
    indices[place] = earlierIndices[row * p.k + mine.y];
  } else {
    values[place] = scores[row * p.columns + mine.y - p.earlier];
    indices[place] = i32(p.first + mine.y - p.earlier);
  }
}
