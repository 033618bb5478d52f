// Batch norm over rows. Statistics are taken of ranges of rows, which are cut by the shape alone, and joined in order.
import { scratch } from "./context";
import { loadUpTo, storeUpTo } from "./math";
import { real, word } from "./step";

/**
 * Of each column over the rows of a chunk: mean and Σ(x − mean)², so that a large mean costs no digits. Arguments: x, parts
 * [chunks, 2, C], rows, C, rows a chunk.
 */
export function batchNormPartial(step: usize, chunk: u32): void {
  const C = word(step, 3), perChunk = word(step, 4), first = chunk * perChunk, rows = min(perChunk, word(step, 2) - first);
  const stride: usize = <usize>C << 2, x = word(step, 0) + first * stride, parts = word(step, 1) + 2 * chunk * stride;
  const share = f32x4.splat(1 / <f32>rows);
  let c: u32 = 0;
  for (; c + 16 <= C; c += 16) {
    const at = <usize>c << 2;
    let p = x + at, s0 = f32x4.splat(0), s1 = s0, s2 = s0, s3 = s0;
    for (let r = rows; r; r--, p += stride) {
      s0 = f32x4.add(s0, v128.load(p));
      s1 = f32x4.add(s1, v128.load(p, 16));
      s2 = f32x4.add(s2, v128.load(p, 32));
      s3 = f32x4.add(s3, v128.load(p, 48));
    }
    const m0 = f32x4.mul(s0, share), m1 = f32x4.mul(s1, share), m2 = f32x4.mul(s2, share), m3 = f32x4.mul(s3, share);
    v128.store(parts + at, m0);
    v128.store(parts + at, m1, 16);
    v128.store(parts + at, m2, 32);
    v128.store(parts + at, m3, 48);
    p = x + at;
    s0 = f32x4.splat(0), s1 = s0, s2 = s0, s3 = s0;
    for (let r = rows; r; r--, p += stride) {
      const d0 = f32x4.sub(v128.load(p), m0), d1 = f32x4.sub(v128.load(p, 16), m1);
      const d2 = f32x4.sub(v128.load(p, 32), m2), d3 = f32x4.sub(v128.load(p, 48), m3);
      s0 = f32x4.relaxed_madd(d0, d0, s0);
      s1 = f32x4.relaxed_madd(d1, d1, s1);
      s2 = f32x4.relaxed_madd(d2, d2, s2);
      s3 = f32x4.relaxed_madd(d3, d3, s3);
    }
    v128.store(parts + stride + at, s0);
    v128.store(parts + stride + at, s1, 16);
    v128.store(parts + stride + at, s2, 32);
    v128.store(parts + stride + at, s3, 48);
  }
  for (; c < C; c += 4) {
    const at = <usize>c << 2, left = C - c;
    let p = x + at, s = f32x4.splat(0), squares = s;
    for (let r = rows; r; r--, p += stride) s = f32x4.add(s, loadUpTo(p, left));
    const mean = f32x4.mul(s, share);
    p = x + at;
    for (let r = rows; r; r--, p += stride) {
      const d = f32x4.sub(loadUpTo(p, left), mean);
      squares = f32x4.relaxed_madd(d, d, squares);
    }
    storeUpTo(parts + at, mean, left);
    storeUpTo(parts + stride + at, squares, left);
  }
}

/** Mean of a column over the rows of all parts; `p` is where the first part keeps it. */
function joinedMean(p: usize, rows: u32, perPart: u32, stride: usize): f64 {
  let sum: f64 = 0;
  for (let first: u32 = 0; first < rows; first += perPart, p += 2 * stride) {
    sum += <f64>load<f32>(p) * <f64>min(perPart, rows - first);
  }
  return sum / <f64>rows;
}

/** Σ(x − center)² of a column over the rows of all parts, `center` being their mean. */
function joinedSquares(p: usize, rows: u32, perPart: u32, stride: usize, center: f64): f64 {
  let squares: f64 = 0;
  for (let first: u32 = 0; first < rows; first += perPart, p += 2 * stride) {
    const d = <f64>load<f32>(p) - center;
    squares += <f64>load<f32>(p + stride) + d * d * <f64>min(perPart, rows - first);
  }
  return squares;
}

/** Joins the chunks into moments [2, C]: mean and Σ(x − mean)². Arguments: parts, moments, rows, C, rows of a part, channels a chunk. */
export function batchNormMoments(step: usize, chunk: u32): void {
  const rows = word(step, 2), C = word(step, 3), perPart = word(step, 4), perChunk = word(step, 5);
  const stride: usize = <usize>C << 2, last = min((chunk + 1) * perChunk, C);
  for (let c = chunk * perChunk; c < last; c++) {
    const at = <usize>c << 2, center = joinedMean(word(step, 0) + at, rows, perPart, stride);
    store<f32>(word(step, 1) + at, <f32>center);
    store<f32>(word(step, 1) + stride + at, <f32>joinedSquares(word(step, 0) + at, rows, perPart, stride, center));
  }
}

/**
 * Joins the chunks, moves the running statistics, and keeps what the rows are normalised by. Arguments: parts (0 in evaluation),
 * runningMean, runningVar, stats, rows, C, rows of a part, eps, momentum, channels a chunk.
 */
export function batchNormStats(step: usize, chunk: u32): void {
  const parts: usize = word(step, 0), rows = word(step, 4), C = word(step, 5), perPart = word(step, 6);
  const stride: usize = <usize>C << 2, last = min((chunk + 1) * word(step, 9), C);
  const momentum = <f64>real(step, 8);
  for (let c = chunk * word(step, 9); c < last; c++) {
    const at = <usize>c << 2, runningMean = word(step, 1) + at, runningVar = word(step, 2) + at;
    let mean = <f64>load<f32>(runningMean), variance = <f64>load<f32>(runningVar);
    if (parts) {
      const center = joinedMean(parts + at, rows, perPart, stride);
      const squares = joinedSquares(parts + at, rows, perPart, stride, center);
      store<f32>(runningMean, <f32>(mean + momentum * (center - mean)));
      store<f32>(runningVar, <f32>(variance + momentum * (squares / <f64>(rows - 1) - variance)));
      mean = center;
      variance = squares / <f64>rows;
    }
    store<f32>(word(step, 3) + at, <f32>mean);
    store<f32>(word(step, 3) + stride + at, <f32>(1 / Math.sqrt(variance + <f64>real(step, 7))));
  }
}

/** y = (x − mean)·rstd·weight + bias; arguments x, stats, weight, bias, y, rows, C, rows a chunk. Scratch: a row. */
export function batchNorm(step: usize, chunk: u32): void {
  const C = word(step, 6), perChunk = word(step, 7), first = chunk * perChunk, last = min(first + perChunk, word(step, 5));
  const stride: usize = <usize>C << 2, mean: usize = word(step, 1), bias: usize = word(step, 3);
  for (let c: u32 = 0; c < C; c += 4) {
    const at = <usize>c << 2, left = C - c;
    v128.store(scratch + at, f32x4.mul(loadUpTo(mean + stride + at, left), loadUpTo(word(step, 2) + at, left)));
  }
  for (let r = first; r < last; r++) {
    const x: usize = word(step, 0) + r * stride, y: usize = word(step, 4) + r * stride;
    let c: u32 = 0;
    for (; c + 8 <= C; c += 8) {
      const at = <usize>c << 2;
      const d0 = f32x4.sub(v128.load(x + at), v128.load(mean + at));
      const d1 = f32x4.sub(v128.load(x + at, 16), v128.load(mean + at, 16));
      const v0 = f32x4.relaxed_madd(d0, v128.load(scratch + at), v128.load(bias + at));
      const v1 = f32x4.relaxed_madd(d1, v128.load(scratch + at, 16), v128.load(bias + at, 16));
      v128.store(y + at, v0);
      v128.store(y + at, v1, 16);
    }
    for (; c < C; c += 4) {
      const at = <usize>c << 2, left = C - c, d = f32x4.sub(loadUpTo(x + at, left), loadUpTo(mean + at, left));
      storeUpTo(y + at, f32x4.relaxed_madd(d, v128.load(scratch + at), loadUpTo(bias + at, left)), left);
    }
  }
}

/** Σ dy·x̂ and Σ dy of each column over the rows of a chunk; arguments dy, x, stats, parts [chunks, 2, C], rows, C, rows a chunk. */
export function batchNormBackwardPartial(step: usize, chunk: u32): void {
  const C = word(step, 5), perChunk = word(step, 6), first = chunk * perChunk, rows = min(perChunk, word(step, 4) - first);
  const stride: usize = <usize>C << 2, dy = word(step, 0) + first * stride, x = word(step, 1) + first * stride;
  const parts = word(step, 3) + 2 * chunk * stride, stats: usize = word(step, 2);
  let c: u32 = 0;
  for (; c + 8 <= C; c += 8) {
    const at = <usize>c << 2, m0 = v128.load(stats + at), m1 = v128.load(stats + at, 16);
    let p = dy + at, q = x + at, s0 = f32x4.splat(0), s1 = s0, t0 = s0, t1 = s0;
    for (let r = rows; r; r--, p += stride, q += stride) {
      const d0 = v128.load(p), d1 = v128.load(p, 16);
      s0 = f32x4.add(s0, d0);
      s1 = f32x4.add(s1, d1);
      t0 = f32x4.relaxed_madd(d0, f32x4.sub(v128.load(q), m0), t0);
      t1 = f32x4.relaxed_madd(d1, f32x4.sub(v128.load(q, 16), m1), t1);
    }
    v128.store(parts + at, f32x4.mul(t0, v128.load(stats + stride + at)));
    v128.store(parts + at, f32x4.mul(t1, v128.load(stats + stride + at, 16)), 16);
    v128.store(parts + stride + at, s0);
    v128.store(parts + stride + at, s1, 16);
  }
  for (; c < C; c += 4) {
    const at = <usize>c << 2, left = C - c, mean = loadUpTo(stats + at, left);
    let p = dy + at, q = x + at, s = f32x4.splat(0), t = s;
    for (let r = rows; r; r--, p += stride, q += stride) {
      const d = loadUpTo(p, left);
      s = f32x4.add(s, d);
      t = f32x4.relaxed_madd(d, f32x4.sub(loadUpTo(q, left), mean), t);
    }
    storeUpTo(parts + at, f32x4.mul(t, loadUpTo(stats + stride + at, left)), left);
    storeUpTo(parts + stride + at, s, left);
  }
}

/**
 * Joins the chunks: dweight (+)= Σ dy·x̂, dbias (+)= Σ dy, and sums [2, C] their means over the rows, or 0 in evaluation. Arguments:
 * parts, chunks, sums, dweight (or 0), dbias (or 0), C, 1/rows (or 0), accumulate, channels a chunk.
 */
export function batchNormBackwardSums(step: usize, chunk: u32): void {
  const C = word(step, 5), last = min((chunk + 1) * word(step, 8), C), stride: usize = <usize>C << 2;
  for (let c = chunk * word(step, 8); c < last; c++) {
    const at = <usize>c << 2;
    let p = word(step, 0) + at, product: f64 = 0, sum: f64 = 0;
    for (let i = word(step, 1); i; i--, p += 2 * stride) {
      product += <f64>load<f32>(p);
      sum += <f64>load<f32>(p + stride);
    }
    addTo(word(step, 3), at, product, word(step, 7));
    addTo(word(step, 4), at, sum, word(step, 7));
    store<f32>(word(step, 2) + at, <f32>(product * <f64>real(step, 6)));
    store<f32>(word(step, 2) + stride + at, <f32>(sum * <f64>real(step, 6)));
  }
}

function addTo(base: usize, at: usize, v: f64, accumulate: u32): void {
  if (base) store<f32>(base + at, <f32>(accumulate ? v + <f64>load<f32>(base + at) : v));
}

/**
 * dx (+)= weight·rstd·(dy − mean(dy) − x̂·mean(dy·x̂)); dx may be dy. Arguments: dy, x, stats, weight, sums, dx, rows, C,
 * accumulate, rows a chunk. Scratch: two rows, weight·rstd and rstd·mean(dy·x̂).
 */
export function batchNormBackward(step: usize, chunk: u32): void {
  const C = word(step, 7), perChunk = word(step, 9), first = chunk * perChunk, last = min(first + perChunk, word(step, 6));
  const stride: usize = <usize>C << 2, mean: usize = word(step, 2), sums: usize = word(step, 4);
  const slopes = scratch + ((stride + 31) & ~15), accumulate = word(step, 8);
  for (let c: u32 = 0; c < C; c += 4) {
    const at = <usize>c << 2, left = C - c, rstd = loadUpTo(mean + stride + at, left);
    v128.store(scratch + at, f32x4.mul(rstd, loadUpTo(word(step, 3) + at, left)));
    v128.store(slopes + at, f32x4.mul(rstd, loadUpTo(sums + at, left)));
  }
  for (let r = first; r < last; r++) {
    const dy: usize = word(step, 0) + r * stride, x: usize = word(step, 1) + r * stride, dx: usize = word(step, 5) + r * stride;
    let c: u32 = 0;
    if (!accumulate) {
      for (; c + 8 <= C; c += 8) {
        const at = <usize>c << 2, at1 = at + 16;
        const u0 = f32x4.sub(v128.load(x + at), v128.load(mean + at)), u1 = f32x4.sub(v128.load(x + at1), v128.load(mean + at1));
        const d0 = f32x4.sub(v128.load(dy + at), v128.load(sums + stride + at));
        const d1 = f32x4.sub(v128.load(dy + at1), v128.load(sums + stride + at1));
        const v0 = f32x4.mul(v128.load(scratch + at), f32x4.relaxed_nmadd(u0, v128.load(slopes + at), d0));
        const v1 = f32x4.mul(v128.load(scratch + at1), f32x4.relaxed_nmadd(u1, v128.load(slopes + at1), d1));
        v128.store(dx + at, v0);
        v128.store(dx + at1, v1);
      }
    }
    for (; c < C; c += 4) {
      const at = <usize>c << 2, left = C - c, u = f32x4.sub(loadUpTo(x + at, left), loadUpTo(mean + at, left));
      const d = f32x4.sub(loadUpTo(dy + at, left), loadUpTo(sums + stride + at, left));
      let v = f32x4.mul(v128.load(scratch + at), f32x4.relaxed_nmadd(u, v128.load(slopes + at), d));
      if (accumulate) v = f32x4.add(v, loadUpTo(dx + at, left));
      storeUpTo(dx + at, v, left);
    }
  }
}
