// What changes parameters. Arenas are cut into pieces of at most a few thousand elements that belong to one tensor; a chunk
// is a piece. The piece table holds (segment, first element, elements, group) as i32; unused pieces have no elements.
import { laneSum64, loadUpTo, storeUpTo } from "./math";
import { scratch } from "./context";
import { adamwRow, followRow, writeScalars } from "./update_rows";
import { real, word } from "./step";

/** Fills the piece table; arguments: segments i32 [S, 4], S, pieces, capacity, most elements of a piece. */
export function cutPieces(step: usize, _chunk: u32): void {
  const S = word(step, 1), most = word(step, 4);
  let piece: usize = word(step, 2);
  const end = piece + (<usize>word(step, 3) << 4);
  for (let s: u32 = 0; s < S; s++) {
    const segment = word(step, 0) + (<usize>s << 4);
    let first = load<u32>(segment), left = load<u32>(segment, 4);
    for (; left > 0 && piece < end; piece += 16) {
      const n = min(left, most);
      store<u32>(piece, s);
      store<u32>(piece, first, 4);
      store<u32>(piece, n, 8);
      store<u32>(piece, load<u32>(segment, 8), 12);
      first += n;
      left -= n;
    }
  }
  memory.fill(piece, 0, end - piece);
}

/** partials[piece] = Σg², Σp², Σg·p in f64; arguments: grad, param, pieces, partials. */
export function gradientNorms(step: usize, chunk: u32): void {
  const piece = word(step, 2) + (<usize>chunk << 4), first: usize = load<u32>(piece, 4) << 2, n = load<u32>(piece, 8);
  let gg: f64 = 0, pp: f64 = 0, gp: f64 = 0;
  for (let i: u32 = 0; i < n;) {
    let a = f32x4.splat(0), b = a, c = a;
    for (const end = min(i + 512, n); i < end; i += 4) {
      const at = first + (<usize>i << 2), left = n - i;
      const g = loadUpTo(word(step, 0) + at, left), p = loadUpTo(word(step, 1) + at, left);
      a = f32x4.relaxed_madd(g, g, a);
      b = f32x4.relaxed_madd(p, p, b);
      c = f32x4.relaxed_madd(g, p, c);
    }
    gg += laneSum64(a);
    pp += laneSum64(b);
    gp += laneSum64(c);
  }
  const out = word(step, 3) + <usize>chunk * 24;
  store<f64>(out, gg);
  store<f64>(out, pp, 8);
  store<f64>(out, gp, 16);
}

/** norms[segment] = sums of its pieces in order; arguments: pieces, piece count, partials, norms, segments. */
export function reduceNorms(step: usize, _chunk: u32): void {
  const count = word(step, 1);
  memory.fill(word(step, 3), 0, word(step, 4) << 4);
  for (let i: u32 = 0; i < count;) {
    const segment = load<u32>(word(step, 0) + (<usize>i << 4));
    let gg: f64 = 0, pp: f64 = 0, gp: f64 = 0;
    for (; i < count && load<u32>(word(step, 0) + (<usize>i << 4)) == segment; i++) {
      if (!load<u32>(word(step, 0) + (<usize>i << 4), 8)) return;
      const p = word(step, 2) + <usize>i * 24;
      gg += load<f64>(p);
      pp += load<f64>(p, 8);
      gp += load<f64>(p, 16);
    }
    const out = word(step, 3) + (<usize>segment << 4);
    store<f32>(out, <f32>gg);
    store<f32>(out, <f32>pp, 4);
    store<f32>(out, <f32>gp, 8);
  }
}

const ADAMW: u32 = 0;
const SGD: u32 = 1;

/**
 * Arguments: pieces, param, grad, first, second, norms, groups, teacher (or 0), teacherMomentum (or 0), frozen (or 0),
 * method, beta1, 1 − beta1, beta2, 1 − beta2, eps, momentum, eta.
 */
export function optimizerUpdate(step: usize, chunk: u32): void {
  if (word(step, 9) && load<f32>(word(step, 9)) != 0) return;
  const piece = word(step, 0) + (<usize>chunk << 4), first: usize = load<u32>(piece, 4) << 2, n = load<u32>(piece, 8);
  const norms = word(step, 5) + (<usize>load<u32>(piece) << 4), group = word(step, 6) + (<usize>load<u32>(piece, 12) << 5);
  const p = word(step, 1) + first, grad = word(step, 2) + first, m = word(step, 3) + first;
  if (load<f32>(group, 20) != 0) {
    const gg = load<f32>(norms), lr = load<f32>(group), wd = load<f32>(group, 4), clip = load<f32>(group, 16);
    const factor: f32 = clip > 0 ? min<f32>(1, clip / (sqrt(gg) + 1e-6)) : 1;
    if (word(step, 10) == ADAMW) adamw(step, n, p, grad, m, word(step, 4) + first, group, factor, lr, wd);
    else descend(step, n, p, grad, m, norms, group, factor, lr, wd);
  }
  if (word(step, 7)) follow(word(step, 7) + first, p, n, load<f32>(word(step, 8)));
}

function adamw(step: usize, n: u32, p: usize, grad: usize, m: usize, v: usize, group: usize, clip: f32, lr: f32, wd: f32): void {
  writeScalars(
    scratch, clip, <f32>(1 - <f64>lr * <f64>wd), lr / load<f32>(group, 8), 1 / sqrt(load<f32>(group, 12)), real(step, 15),
    real(step, 11), real(step, 12), real(step, 13), real(step, 14),
  );
  adamwRow(p, grad, m, v, n, scratch);
}

/** SGD and LARS. */
function descend(step: usize, n: u32, p: usize, grad: usize, m: usize, norms: usize, group: usize, clip: f32, lr: f32, wd: f32): void {
  const sgd = word(step, 10) == SGD, adapt = load<f32>(group, 28) != 0;
  const gg: f64 = load<f32>(norms), pp: f64 = load<f32>(norms, 4), gp: f64 = load<f32>(norms, 8);
  const c: f64 = clip, w: f64 = wd, decayed = c * c * gg + 2 * c * w * gp + w * w * pp;
  const trust: f32 = adapt && pp > 0 && decayed > 0 ? <f32>(<f64>real(step, 17) * sqrt(pp) / sqrt(decayed)) : 1;
  const factor = f32x4.splat(clip), decay = f32x4.splat(sgd || adapt ? wd : 0), scale = f32x4.splat(sgd ? 1 : trust);
  const momentum = f32x4.splat(sgd && load<f32>(group, 24) != 0 ? 0 : real(step, 16)), rate = f32x4.splat(lr);
  for (let i: u32 = 0; i < n; i += 4) {
    const at = <usize>i << 2, left = n - i, old = loadUpTo(p + at, left);
    const g = f32x4.mul(f32x4.relaxed_madd(decay, old, f32x4.mul(loadUpTo(grad + at, left), factor)), scale);
    const velocity = f32x4.relaxed_madd(momentum, loadUpTo(m + at, left), g);
    storeUpTo(m + at, velocity, left);
    storeUpTo(p + at, f32x4.relaxed_nmadd(rate, velocity, old), left);
  }
}

/** target ← λ·target + (1 − λ)·source. */
function follow(target: usize, source: usize, n: u32, lambda: f32): void {
  store<f32>(scratch, lambda);
  store<f32>(scratch, <f32>(1 - <f64>lambda), 4);
  followRow(target, source, n, scratch);
}

/** Arguments: source, target, momentum, frozen (or 0), elements, elements a chunk. */
export function ema(step: usize, chunk: u32): void {
  if (word(step, 3) && load<f32>(word(step, 3)) != 0) return;
  const perChunk = word(step, 5), first = chunk * perChunk, at = <usize>first << 2;
  follow(word(step, 1) + at, word(step, 0) + at, min(perChunk, word(step, 4) - first), load<f32>(word(step, 2)));
}

/** flag[0] = 1 if an element is NaN or infinite; arguments: x, flag, elements, elements a chunk. */
export function checkFinite(step: usize, chunk: u32): void {
  const perChunk = word(step, 3), first = chunk * perChunk, last = min(first + perChunk, word(step, 2));
  let bad = f32x4.splat(0);
  for (let i = first; i < last; i += 4) {
    const v = loadUpTo(word(step, 0) + (<usize>i << 2), last - i), zero = f32x4.sub(v, v);
    bad = v128.or(bad, f32x4.ne(zero, zero)); // x − x is NaN for NaN and ±∞ alone
  }
  // Several threads may write; they all write 1.
  if (v128.any_true(bad)) store<f32>(word(step, 1), 1);
}

/** ring[row, :] = values; arguments: values, row, ring, elements, whether row is an integer. */
export function record(step: usize, _chunk: u32): void {
  const row: u32 = word(step, 4) ? load<u32>(word(step, 1)) : <u32>load<f32>(word(step, 1));
  const bytes: usize = word(step, 3) << 2;
  memory.copy(word(step, 2) + row * bytes, word(step, 0), bytes);
}
