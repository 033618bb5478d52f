// Colour adjustments of Pillow on packed pixels, four at a time, exact to the last bit.
// float32 stands in for integer division: a quotient of integers below 2²⁴ never rounds across a whole number
// here, because it is either whole or further from one than float32's spacing below 256.
// Its relaxed conversion to integers is exact for what is in range, and everything is.

// @ts-ignore: decorator
@inline const BRIGHTNESS: i32 = 1;
// @ts-ignore: decorator
@inline const CONTRAST: i32 = 2;
// @ts-ignore: decorator
@inline const SATURATION: i32 = 3;
// @ts-ignore: decorator
@inline const HUE: i32 = 4;

/**
 * Applies the adjustments begin … end − 1 of a record to count pixels u32, in place.
 *
 * mean: the luma contrast blends with. temp: 16 bytes of scratch.
 * Returns the sum of luma over the result.
 */
export function colorRange(
  image: usize,
  count: i32,
  record: usize,
  begin: i32,
  end: i32,
  mean: i32,
  temp: usize,
): u32 {
  let sums = i32x4.splat(0); // a lane stays below 255·2²²
  const whole = count & ~3;
  for (let i = 0; i < whole; i += 4) {
    const at = image + (<usize>i << 2);
    sums = i32x4.add(sums, colorBlock(at, record, begin, end, mean));
  }
  if (whole < count) {
    // What follows is not pixels: finish on a copy, padded with black, which stays black until the contrast.
    v128.store(temp, i32x4.splat(0));
    memory.copy(temp, image + (<usize>whole << 2), <usize>(count - whole) << 2);
    sums = i32x4.add(sums, colorBlock(temp, record, begin, end, mean));
    memory.copy(image + (<usize>whole << 2), temp, <usize>(count - whole) << 2);
  }
  return <u32>i32x4.extract_lane(sums, 0) + <u32>i32x4.extract_lane(sums, 1) + <u32>i32x4.extract_lane(sums, 2) +
    <u32>i32x4.extract_lane(sums, 3);
}

// @ts-ignore: decorator
@inline
function luma(red: v128, green: v128, blue: v128): v128 {
  const sum = i32x4.add(
    i32x4.add(i32x4.mul(red, i32x4.splat(19595)), i32x4.mul(green, i32x4.splat(38470))),
    i32x4.add(i32x4.mul(blue, i32x4.splat(7471)), i32x4.splat(32768)),
  );
  return i32x4.shr_u(sum, 16);
}

// d + factor·(x − d), each step rounded to float32 as Pillow's C code does, cut to 0 … 255. No fused multiply-add here.
// @ts-ignore: decorator
@inline
function blend(degenerate: v128, value: v128, factor: v128): v128 {
  const product = f32x4.mul(factor, f32x4.convert_i32x4_s(i32x4.sub(value, degenerate)));
  const mixed = f32x4.add(f32x4.convert_i32x4_s(degenerate), product);
  const cut = f32x4.min(f32x4.max(mixed, f32x4.splat(0)), f32x4.splat(255));
  return i32x4.relaxed_trunc_f32x4_s(cut);
}

// ⌊a/b⌋ for non-negative integers as described above.
// @ts-ignore: decorator
@inline
function quotient(a: v128, b: v128): v128 {
  return i32x4.relaxed_trunc_f32x4_s(f32x4.div(f32x4.convert_i32x4_s(a), f32x4.convert_i32x4_s(b)));
}

/** Four pixels; returns the luma of the result. */
function colorBlock(at: usize, record: usize, begin: i32, end: i32, mean: i32): v128 {
  const byte = i32x4.splat(255);
  const packed = v128.load(at);
  let red = v128.and(packed, byte);
  let green = v128.and(i32x4.shr_u(packed, 8), byte);
  let blue = v128.and(i32x4.shr_u(packed, 16), byte);
  for (let k = begin; k < end; k++) {
    const kind = load<i32>(record + (<usize>k << 2), 36);
    const factor = v128.load32_splat(record + (<usize>k << 2), 56); // float32, or the byte of the hue
    if (kind == HUE) {
      const value = i32x4.max_s(red, i32x4.max_s(green, blue));
      const range = i32x4.sub(value, i32x4.min_s(red, i32x4.min_s(green, blue)));
      const grey = i32x4.eq(range, i32x4.splat(0)); // comes back as it was
      const divisor = v128.bitselect(i32x4.splat(1), range, grey);

      // Hue in sixths of a turn times range, from the channel that is largest: red first, then green.
      const isRed = i32x4.eq(red, value), isGreen = i32x4.eq(green, value);
      const twice = i32x4.shl(range, 1);
      let turns = i32x4.add(i32x4.shl(twice, 1), i32x4.sub(red, green));
      turns = v128.bitselect(i32x4.add(twice, i32x4.sub(blue, red)), turns, isGreen);
      turns = v128.bitselect(i32x4.sub(green, blue), turns, isRed);
      const six = i32x4.mul(divisor, i32x4.splat(6));
      turns = i32x4.add(turns, v128.and(six, i32x4.shr_s(turns, 31)));
      const numerator = i32x4.mul(turns, byte);
      let hue = quotient(numerator, six);
      const exact = i32x4.eq(i32x4.mul(hue, six), numerator);
      hue = i32x4.sub(hue, v128.and(exact, roundsDown(hue)));
      hue = v128.and(i32x4.add(hue, factor), byte);
      const saturation = quotient(i32x4.mul(range, byte), i32x4.max_s(value, i32x4.splat(1)));

      const sixfold = i32x4.mul(hue, i32x4.splat(6));
      const sector = quotient(sixfold, byte); // 0 … 6, and 6 is 0
      const fraction = i32x4.sub(sixfold, i32x4.mul(sector, byte));
      const full = i32x4.splat(65025), round = i32x4.splat(32512);
      const p = quotient(
        i32x4.add(i32x4.mul(value, i32x4.sub(byte, saturation)), i32x4.splat(127)),
        byte,
      );
      const q = quotient(
        i32x4.add(i32x4.mul(value, i32x4.sub(full, i32x4.mul(saturation, fraction))), round),
        full,
      );
      const t = quotient(
        i32x4.add(i32x4.mul(value, i32x4.sub(full, i32x4.mul(saturation, i32x4.sub(byte, fraction)))), round),
        full,
      );
      const is1 = i32x4.eq(sector, i32x4.splat(1)), is2 = i32x4.eq(sector, i32x4.splat(2));
      const is3 = i32x4.eq(sector, i32x4.splat(3)), is4 = i32x4.eq(sector, i32x4.splat(4));
      const is5 = i32x4.eq(sector, i32x4.splat(5));
      // Sectors: 0 v t p, 1 q v p, 2 p v t, 3 p q v, 4 t p v, 5 v p q.
      let r = v128.bitselect(q, value, is1);
      r = v128.bitselect(p, r, v128.or(is2, is3));
      r = v128.bitselect(t, r, is4);
      let g = v128.bitselect(value, t, v128.or(is1, is2));
      g = v128.bitselect(q, g, is3);
      g = v128.bitselect(p, g, v128.or(is4, is5));
      let b = v128.bitselect(t, p, is2);
      b = v128.bitselect(value, b, v128.or(is3, is4));
      b = v128.bitselect(q, b, is5);
      red = v128.bitselect(red, r, grey);
      green = v128.bitselect(green, g, grey);
      blue = v128.bitselect(blue, b, grey);
    } else if (kind == BRIGHTNESS || kind == CONTRAST) {
      const degenerate = i32x4.splat(kind == CONTRAST ? mean : 0);
      red = blend(degenerate, red, factor);
      green = blend(degenerate, green, factor);
      blue = blend(degenerate, blue, factor);
    } else {
      const grey = luma(red, green, blue);
      if (kind == SATURATION) {
        red = blend(grey, red, factor);
        green = blend(grey, green, factor);
        blue = blend(grey, blue, factor);
      } else {
        red = grey;
        green = grey;
        blue = grey;
      }
    }
  }
  v128.store(at, v128.or(red, v128.or(i32x4.shl(green, 8), i32x4.shl(blue, 16))));
  return luma(red, green, blue);
}

// 1 in the lanes whose hue byte is in HUE_ROUNDS_DOWN (models/image/color.ts), else 0: a table of 256 bits, looked
// up by byte (hue >> 3) and by bit (hue & 7).
// @ts-ignore: decorator
@inline
function roundsDown(hue: v128): v128 {
  const low = i32x4(0xfffffffe, 0x0, 0x11000000, 0x111);
  const high = i32x4(0x222aaaaa, 0x23232222, 0x22222, 0x0);
  const bits = i8x16(1, 2, 4, 8, 16, 32, 64, -128, 0, 0, 0, 0, 0, 0, 0, 0);
  const index = i32x4.shr_u(hue, 3); // the upper bytes of a lane read entry 0 and are masked below
  const bytes = v128.or(i8x16.swizzle(low, index), i8x16.swizzle(high, i8x16.sub(index, i8x16.splat(16))));
  const bit = i8x16.swizzle(bits, v128.and(hue, i32x4.splat(7)));
  const found = v128.and(v128.and(bytes, bit), i32x4.splat(255));
  return i32x4.shr_u(i32x4.neg(found), 31);
}
