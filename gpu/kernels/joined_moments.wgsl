// Mean and Σ(x − mean)² of the column c, from those of chunks of rows or of ranks, joined in order; and how many rows that were.
// Reads `p` and `parts` of the kernel it is a part of.
struct Moments { rows: f32, mean: f32, squares: f32 }

fn joinedMoments(c: u32) -> Moments {
  var rows = 0.0;
  var mean = 0.0;
  var squares = 0.0;
  for (var chunk = 0u; chunk < p.chunks; chunk++) {
    let extra = f32(min(p.rowsPerChunk, p.rows - chunk * p.rowsPerChunk));
    let delta = parts[2u * chunk * p.count + c] - mean;
    let both = rows + extra;
    mean += delta * extra / both;
    squares += parts[(2u * chunk + 1u) * p.count + c] + delta * delta * rows * extra / both;
    rows = both;
  }
  return Moments(rows, mean, squares);
}
