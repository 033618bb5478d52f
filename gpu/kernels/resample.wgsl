// y[r, :] (+)= x[r, :] for r < lead; y[lead + oy·outW + ox, :] (+)= Σ_iy Σ_ix wy[oy, iy]·wx[ox, ix]·x[lead + iy·inW + ix, :]. One thread an element of y, in V; bands give the first and one past the last non-zero of each row of wy and wx.
struct Params { count: u32, columns: u32, lead: u32, inHeight: u32, inWidth: u32, outWidth: u32, accumulate: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<V>;
@group(0) @binding(2) var<storage, read_write> wy: array<f32>;
@group(0) @binding(3) var<storage, read_write> wx: array<f32>;
@group(0) @binding(4) var<storage, read_write> bandsY: array<i32>;
@group(0) @binding(5) var<storage, read_write> bandsX: array<i32>;
@group(0) @binding(6) var<storage, read_write> y: array<V>;

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
  let row = i / p.columns;
  let column = i % p.columns;
  var sum = V(0.0);
  if (row < p.lead) {
    sum = x[i];
  } else {
    let oy = (row - p.lead) / p.outWidth;
    let ox = (row - p.lead) % p.outWidth;
    let endY = u32(bandsY[2u * oy + 1u]);
    let endX = u32(bandsX[2u * ox + 1u]);
    for (var iy = u32(bandsY[2u * oy]); iy < endY; iy++) {
      for (var ix = u32(bandsX[2u * ox]); ix < endX; ix++) {
        let w = wy[oy * p.inHeight + iy] * wx[ox * p.inWidth + ix];
        sum = fma(V(w), x[(p.lead + iy * p.inWidth + ix) * p.columns + column], sum);
      }
    }
  }
  if (p.accumulate != 0u) {
    sum += y[i];
  }
  y[i] = sum;
}
