// The residual and the factors of rows that an epilogue adds and multiplies, where a kernel binds them.
fn residualAt(at: u32) -> V {
  return residual[at];
}

fn rowScaleOf(row: u32) -> f32 {
  return rowScale[row / p.rowsPerScale];
}
