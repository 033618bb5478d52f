// dx (+)= rstd·(g − mean(g) − x̂·mean(g·x̂)) with g = dy·weight and x̂ = (x − mean)·rstd;
// parts[strip] = (Σ dy·x̂, Σ dy) over the rows of a strip, which column_sum.wgsl adds up. dy, x, dx: [rows, columns], columns in V.
// A workgroup has a strip of STRIP rows. First LANES threads a row find the two means; then a thread owns a column and walks down
// every `walkers`-th row of the strip, which it finds in cache, and the walkers of a column add up.
// dx may be dy: a thread has read an element before it writes it.
struct Params { rows: u32, columns: u32, hasX: u32, hasParams: u32, accumulateX: u32, walkers: u32, perColumn: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> dy: array<V>;
@group(0) @binding(2) var<storage, read_write> x: array<V>;
@group(0) @binding(3) var<storage, read_write> stats: array<f32>;
@group(0) @binding(4) var<storage, read_write> weight: array<V>;
@group(0) @binding(5) var<storage, read_write> dx: array<V>;
@group(0) @binding(6) var<storage, read_write> parts: array<V>;

// Of each row of the strip: mean, rstd, mean(g), mean(g·x̂).
var<workgroup> rowsOfStrip: array<vec4f, STRIP>;
var<workgroup> weightSums: array<V, 256>;
var<workgroup> biasSums: array<V, 256>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let strip = groupIndex(group, groups);
  let begin = strip * STRIP;
  let slot = thread / LANES;
  let lane = thread % LANES;
  for (var base = 0u; base < STRIP; base += ROWS) {
    let i = base + slot;
    let row = begin + i;
    let columns = select(0u, p.columns, row < p.rows);
    let mean = stats[2u * row];
    let rstd = stats[2u * row + 1u];
    var sum = V(0.0);
    var product = V(0.0);
    for (var c = lane; c < columns; c += LANES) {
      let g = dy[row * p.columns + c] * weight[c];
      sum += g;
      product = fma(g, (x[row * p.columns + c] - mean) * rstd, product);
    }
    let meanG = rowSum(total(sum), slot, lane) * p.perColumn;
    let meanProduct = rowSum(total(product), slot, lane) * p.perColumn;
    if (lane == 0u) {
      rowsOfStrip[i] = vec4f(mean, rstd, meanG, meanProduct);
    }
  }
  workgroupBarrier();
  let end = min(begin + STRIP, p.rows);
  let across = 256u / p.walkers; // columns at a time
  let walker = thread / across;
  for (var block = 0u; block < p.columns; block += across) {
    let c = block + thread % across;
    let walks = walker < p.walkers && c < p.columns;
    var dweight = V(0.0);
    var dbias = V(0.0);
    if (walks) {
      let w = weight[c];
      for (var row = begin + walker; row < end; row += p.walkers) {
        let s = rowsOfStrip[row - begin];
        let at = row * p.columns + c;
        let d = dy[at];
        let unit = (x[at] - s.x) * s.y;
        dweight = fma(d, unit, dweight);
        dbias += d;
        if (p.hasX != 0u) {
          var value = s.y * (d * w - s.z - unit * s.w);
          if (p.accumulateX != 0u) {
            value += dx[at];
          }
          dx[at] = value;
        }
      }
    }
    weightSums[thread] = dweight;
    biasSums[thread] = dbias;
    workgroupBarrier();
    if (p.hasParams != 0u && walker == 0u && walks && begin < p.rows) {
      for (var other = thread + across; other < p.walkers * across; other += across) {
        dweight += weightSums[other];
        dbias += biasSums[other];
      }
      parts[2u * strip * p.columns + c] = dweight;
      parts[(2u * strip + 1u) * p.columns + c] = dbias;
    }
    workgroupBarrier();
  }
}
