// An element of a layer norm: one order of roundings, whether rows are stored or normalised as a product reads them.
fn normalized(x: V, mean: f32, rstd: f32, weight: V, bias: V) -> V {
  return fma((x - mean) * rstd, weight, bias);
}
