// Elementwise operations and sums over rows. A chunk is a range of elements, or a range of columns.
import { constants } from "./context";
import { geluBackwardRow, geluRow, scaledRow } from "./rows";
import { geluDerivative4, laneSum64, loadUpTo, storeUpTo } from "./math";
import { real, word } from "./step";

/** y = a + b; arguments a, b, y, elements, elements a chunk. */
export function add(step: usize, chunk: u32): void {
  const a = word(step, 0), b = word(step, 1), y = word(step, 2), perChunk = word(step, 4);
  const first = chunk * perChunk, last = min(first + perChunk, word(step, 3));
  let i = first;
  for (; i + 8 <= last; i += 8) {
    const at = <usize>i << 2;
    const v0 = f32x4.add(v128.load(a + at), v128.load(b + at));
    const v1 = f32x4.add(v128.load(a + at, 16), v128.load(b + at, 16));
    v128.store(y + at, v0);
    v128.store(y + at, v1, 16);
  }
  for (; i < last; i += 4) {
    const at = <usize>i << 2, left = last - i;
    storeUpTo(y + at, f32x4.add(loadUpTo(a + at, left), loadUpTo(b + at, left)), left);
  }
}

/** y = x, any element type; arguments x, y, bytes, bytes a chunk. */
export function copy(step: usize, chunk: u32): void {
  const perChunk = word(step, 3), first = chunk * perChunk;
  memory.copy(word(step, 1) + first, word(step, 0) + first, min(perChunk, word(step, 2) - first));
}

/** y = GELU(x); arguments x, y, elements, elements a chunk. */
export function gelu(step: usize, chunk: u32): void {
  const perChunk = word(step, 3), first = chunk * perChunk, at = <usize>first << 2;
  geluRow(word(step, 0) + at, word(step, 1) + at, min(perChunk, word(step, 2) - first), constants);
}

/** dx (+)= dy·GELU′(x); arguments dy, x, dx, elements, elements a chunk, accumulate. */
export function geluBackward(step: usize, chunk: u32): void {
  const perChunk = word(step, 4), first = chunk * perChunk, at = <usize>first << 2;
  const n = min(perChunk, word(step, 3) - first);
  const dy = word(step, 0) + at, x = word(step, 1) + at, dx = word(step, 2) + at;
  if (!word(step, 5)) {
    geluBackwardRow(dy, x, dx, n, constants);
    return;
  }
  for (let i: u32 = 0; i < n; i += 4) {
    const p = <usize>i << 2, left = n - i;
    const v = f32x4.mul(loadUpTo(dy + p, left), geluDerivative4(loadUpTo(x + p, left), constants));
    storeUpTo(dx + p, f32x4.add(v, loadUpTo(dx + p, left)), left);
  }
}

/** y[r, :] = scale[r / rowsPerScale]·x[r, :]; arguments x, scale, y, rows, columns, rowsPerScale, rows a chunk. */
export function scaleRows(step: usize, chunk: u32): void {
  const columns = word(step, 4), perScale = word(step, 5), perChunk = word(step, 6);
  const last = min((chunk + 1) * perChunk, word(step, 3));
  for (let r = chunk * perChunk; r < last; r++) {
    const offset = <usize>r * (columns << 2);
    scaledRow(word(step, 0) + offset, word(step, 1) + (<usize>(r / perScale) << 2), word(step, 2) + offset, columns);
  }
}

/** Rows summed in registers before they are added to the total: keeps the error of long sums at √rows. */
const SUM_ROWS: u32 = 128;

/** y[n] (+)= Σᵣ x[r, n]; arguments x, y, rows, columns, columns a chunk, accumulate. */
export function columnSum(step: usize, chunk: u32): void {
  const x = word(step, 0), y = word(step, 1), rows = word(step, 2), columns = word(step, 3);
  const perChunk = word(step, 4), stride: usize = columns << 2;
  const last = min((chunk + 1) * perChunk, columns);
  let n = chunk * perChunk;
  if (!word(step, 5)) memory.fill(y + (n << 2), 0, (last - n) << 2);
  for (; n + 16 <= last; n += 16) {
    let p = x + (<usize>n << 2);
    const total = y + (<usize>n << 2);
    for (let r: u32 = 0; r < rows;) {
      let s0 = f32x4.splat(0), s1 = s0, s2 = s0, s3 = s0;
      for (const end = min(r + SUM_ROWS, rows); r < end; r++, p += stride) {
        s0 = f32x4.add(s0, v128.load(p));
        s1 = f32x4.add(s1, v128.load(p, 16));
        s2 = f32x4.add(s2, v128.load(p, 32));
        s3 = f32x4.add(s3, v128.load(p, 48));
      }
      s0 = f32x4.add(s0, v128.load(total));
      s1 = f32x4.add(s1, v128.load(total, 16));
      s2 = f32x4.add(s2, v128.load(total, 32));
      s3 = f32x4.add(s3, v128.load(total, 48));
      v128.store(total, s0);
      v128.store(total, s1, 16);
      v128.store(total, s2, 32);
      v128.store(total, s3, 48);
    }
  }
  for (; n < last; n += 4) {
    const left = last - n, total = y + (<usize>n << 2);
    let p = x + (<usize>n << 2);
    for (let r: u32 = 0; r < rows;) {
      let s = f32x4.splat(0);
      for (const end = min(r + SUM_ROWS, rows); r < end; r++, p += stride) s = f32x4.add(s, loadUpTo(p, left));
      storeUpTo(total, f32x4.add(s, loadUpTo(total, left)), left);
    }
  }
}

/** y[0] (+)= scale·Σx, in float64; arguments x, y, elements, scale, accumulate. */
export function sum(step: usize, _chunk: u32): void {
  const x = word(step, 0), y = word(step, 1), n = word(step, 2);
  let total: f64 = 0;
  for (let i: u32 = 0; i < n; i += 4) total += laneSum64(loadUpTo(x + (<usize>i << 2), n - i));
  total *= <f64>real(step, 3);
  store<f32>(y, <f32>(total + (word(step, 4) ? <f64>load<f32>(y) : 0.0)));
}

/** y[n] (+)= Σ_p partials[p, n]; arguments partials, stride in bytes, count, y, columns, columns a chunk, accumulate. */
export function sumPartials(step: usize, chunk: u32): void {
  const stride: usize = word(step, 1), count = word(step, 2), columns = word(step, 4), perChunk = word(step, 5);
  const last = min((chunk + 1) * perChunk, columns);
  for (let n = chunk * perChunk; n < last; n += 4) {
    const left = last - n, y = word(step, 3) + (<usize>n << 2);
    let p = word(step, 0) + (<usize>n << 2);
    let s = word(step, 6) ? loadUpTo(y, left) : f32x4.splat(0);
    for (let i: u32 = 0; i < count; i++, p += stride) s = f32x4.add(s, loadUpTo(p, left));
    storeUpTo(y, s, left);
  }
}
