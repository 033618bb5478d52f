// What rides on the store of a product: with v = bias[col…] + (A·B)[row, col…],
// c = (accumulate ? c : 0) + residual + rowScale[row / rowsPerScale] · f(v), f the identity, GELU (its argument stored in pre), or
// multiplication by GELU′(pre). Columns come WIDTH at a time; `at` is the index of the first in units of V.
// The including kernel declares the Params `p`, the bindings c, bias, pre, and how to find residual and rowScale (epilogue_slots.wgsl).
const HAS_BIAS = 1u;
const HAS_RESIDUAL = 2u;
const HAS_ROW_SCALE = 4u;
const ACCUMULATE = 8u;
const IS_GELU = 16u;
const KEEPS_PRE = 32u;
const IS_GELU_BACKWARD = 64u;

fn storeProduct(product: V, row: u32, column: u32, columns: u32) {
  let at = row * columns + column;
  var v = product;
  if ((p.flags & HAS_BIAS) != 0u) {
    v += bias[column];
  }
  if (WITH_GELU != 0u) { // a constant: kernels without it are shorter
    if ((p.flags & IS_GELU) != 0u) {
      if ((p.flags & KEEPS_PRE) != 0u) {
        pre[at] = v;
      }
      v = gelu(v);
    } else if ((p.flags & IS_GELU_BACKWARD) != 0u) {
      v *= geluDerivative(pre[at]);
    }
  }
  if ((p.flags & HAS_ROW_SCALE) != 0u) {
    v *= rowScaleOf(row);
  }
  if ((p.flags & HAS_RESIDUAL) != 0u) {
    v += residualAt(at);
  }
  if ((p.flags & ACCUMULATE) != 0u) {
    v += c[at];
  }
  c[at] = v;
}
