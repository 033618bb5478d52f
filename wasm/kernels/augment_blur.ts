// Box blurs of Pillow on packed pixels: three along the rows, three along the columns, each rounded to 8 bits.

/**
 * image u32 [height, width], in place; a box of 2·radius + 1 samples of weight inner and two of weight outer, in 2⁻²⁴.
 *
 * scratch: 32·max(height, width) bytes.
 */
export function boxBlur(
  image: usize,
  height: i32,
  width: i32,
  radius: i32,
  inner: u32,
  outer: u32,
  scratch: usize,
): void {
  const line = <usize>width << 2;
  const other = scratch + (<usize>max(height, width) << 4);
  for (let y = 0; y < height; y++) {
    const row = image + <usize>y * line;
    blurLine(row, 4, scratch, 4, width, radius, inner, outer);
    blurLine(scratch, 4, other, 4, width, radius, inner, outer);
    blurLine(other, 4, row, 4, width, radius, inner, outer);
  }
  let x = 0;
  for (; x + 4 <= width; x += 4) {
    const column = image + (<usize>x << 2);
    blurLine4(column, line, scratch, 16, height, radius, inner, outer);
    blurLine4(scratch, 16, other, 16, height, radius, inner, outer);
    blurLine4(other, 16, column, line, height, radius, inner, outer);
  }
  for (; x < width; x++) {
    const column = image + (<usize>x << 2);
    blurLine(column, line, scratch, 4, height, radius, inner, outer);
    blurLine(scratch, 4, other, 4, height, radius, inner, outer);
    blurLine(other, 4, column, line, height, radius, inner, outer);
  }
}

// @ts-ignore: decorator
@inline
function lanes(at: usize): v128 {
  return i32x4.extend_low_i16x8_u(i16x8.extend_low_i8x16_u(v128.load32_zero(at)));
}

// out[i] = (inner·Σ_{|k| ≤ radius} in[i + k] + outer·(in[i − radius − 1] + in[i + radius + 1]) + 2²³) >> 24, edges
// repeated; a running sum, exact because it is an integer. One pixel, its channels in the lanes.
function blurLine(
  from: usize,
  fromStep: usize,
  into: usize,
  intoStep: usize,
  count: i32,
  radius: i32,
  inner: u32,
  outer: u32,
): void {
  const last = count - 1, half = i32x4.splat(1 << 23);
  const innerWeight = i32x4.splat(inner), outerWeight = i32x4.splat(outer);
  let left = lanes(from);
  let sum = i32x4.mul(left, i32x4.splat(radius + 1));
  for (let k = 1; k <= radius; k++) sum = i32x4.add(sum, lanes(from + <usize>min(k, last) * fromStep));
  for (let i = 0; i < count; i++) {
    const right = lanes(from + <usize>min(i + radius + 1, last) * fromStep);
    const edges = i32x4.add(left, right);
    const total = i32x4.add(
      i32x4.add(i32x4.mul(sum, innerWeight), i32x4.mul(edges, outerWeight)),
      half,
    );
    const bytes = i32x4.shr_u(total, 24);
    const halves = i16x8.narrow_i32x4_u(bytes, bytes);
    v128.store_lane<u32>(into + <usize>i * intoStep, i8x16.narrow_i16x8_u(halves, halves), 0);
    left = lanes(from + <usize>max(i - radius, 0) * fromStep);
    sum = i32x4.add(sum, i32x4.sub(right, left));
  }
}

// @ts-ignore: decorator
@inline
function weighted(sum: v128, edges: v128, inner: v128, outer: v128): v128 {
  const total = i32x4.add(i32x4.mul(sum, inner), i32x4.mul(edges, outer));
  return i32x4.shr_u(i32x4.add(total, i32x4.splat(1 << 23)), 24);
}

// The same for four neighbouring pixels: sums of up to 2·127 + 1 bytes fit 16 bits, larger radii go pixel by pixel.
function blurLine4(
  from: usize,
  fromStep: usize,
  into: usize,
  intoStep: usize,
  count: i32,
  radius: i32,
  inner: u32,
  outer: u32,
): void {
  if (radius > 127) {
    for (let x: usize = 0; x < 16; x += 4) {
      blurLine(from + x, fromStep, into + x, intoStep, count, radius, inner, outer);
    }
    return;
  }
  const last = count - 1;
  const innerWeight = i32x4.splat(inner), outerWeight = i32x4.splat(outer);
  const first = v128.load(from);
  let leftLow = i16x8.extend_low_i8x16_u(first), leftHigh = i16x8.extend_high_i8x16_u(first);
  let sumLow = i16x8.mul(leftLow, i16x8.splat(<i16>(radius + 1)));
  let sumHigh = i16x8.mul(leftHigh, i16x8.splat(<i16>(radius + 1)));
  for (let k = 1; k <= radius; k++) {
    const bytes = v128.load(from + <usize>min(k, last) * fromStep);
    sumLow = i16x8.add(sumLow, i16x8.extend_low_i8x16_u(bytes));
    sumHigh = i16x8.add(sumHigh, i16x8.extend_high_i8x16_u(bytes));
  }
  for (let i = 0; i < count; i++) {
    const bytes = v128.load(from + <usize>min(i + radius + 1, last) * fromStep);
    const rightLow = i16x8.extend_low_i8x16_u(bytes), rightHigh = i16x8.extend_high_i8x16_u(bytes);
    const edgesLow = i16x8.add(leftLow, rightLow), edgesHigh = i16x8.add(leftHigh, rightHigh);
    const b0 = weighted(
      i32x4.extend_low_i16x8_u(sumLow),
      i32x4.extend_low_i16x8_u(edgesLow),
      innerWeight,
      outerWeight,
    );
    const b1 = weighted(
      i32x4.extend_high_i16x8_u(sumLow),
      i32x4.extend_high_i16x8_u(edgesLow),
      innerWeight,
      outerWeight,
    );
    const b2 = weighted(
      i32x4.extend_low_i16x8_u(sumHigh),
      i32x4.extend_low_i16x8_u(edgesHigh),
      innerWeight,
      outerWeight,
    );
    const b3 = weighted(
      i32x4.extend_high_i16x8_u(sumHigh),
      i32x4.extend_high_i16x8_u(edgesHigh),
      innerWeight,
      outerWeight,
    );
    v128.store(
      into + <usize>i * intoStep,
      i8x16.narrow_i16x8_u(i16x8.narrow_i32x4_u(b0, b1), i16x8.narrow_i32x4_u(b2, b3)),
    );
    const old = v128.load(from + <usize>max(i - radius, 0) * fromStep);
    leftLow = i16x8.extend_low_i8x16_u(old);
    leftHigh = i16x8.extend_high_i8x16_u(old);
    sumLow = i16x8.add(sumLow, i16x8.sub(rightLow, leftLow));
    sumHigh = i16x8.add(sumHigh, i16x8.sub(rightHigh, leftHigh));
  }
}
