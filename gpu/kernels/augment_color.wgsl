// Colour adjustments of one pixel, exact: integers, and float32 where Pillow itself rounds to it.
// The kernel that includes this file declares `records: array<i32>`.

// Hue bytes at which Pillow's float32 falls just short of an exact quotient; see HUE_ROUNDS_DOWN in models/image/color.ts.
var<private> hueRoundsDown: array<u32, 8> = array<u32, 8>(
  0xfffffffeu, 0u, 0x11000000u, 0x111u, 0x222aaaaau, 0x23232222u, 0x22222u, 0u,
);

fn lumaOf(rgb: vec3i) -> i32 {
  return (19595 * rgb.x + 38470 * rgb.y + 7471 * rgb.z + 32768) >> 16u;
}

// d + factor·(x − d), rounded to float32 after each step, cut to a byte. `zero` is 0, which the compiler cannot
// know, so it cannot fuse the product with the sum and skip a rounding.
fn blend(degenerate: vec3i, value: vec3i, factor: f32, zero: u32) -> vec3i {
  let product = factor * vec3f(value - degenerate);
  let rounded = bitcast<vec3f>(bitcast<vec3u>(product) ^ vec3u(zero));
  return vec3i(clamp(vec3f(degenerate) + rounded, vec3f(0.0), vec3f(255.0)));
}

fn shiftHue(rgb: vec3i, shift: i32) -> vec3i {
  let value = max(rgb.x, max(rgb.y, rgb.z));
  let range = value - min(rgb.x, min(rgb.y, rgb.z));
  if (range == 0) {
    return rgb;
  }
  let saturation = (255 * range) / value;
  var turns = 4 * range + rgb.x - rgb.y; // in sixths of a turn, times range
  if (rgb.x == value) {
    turns = rgb.y - rgb.z;
  } else if (rgb.y == value) {
    turns = 2 * range + rgb.z - rgb.x;
  }
  if (turns < 0) {
    turns += 6 * range;
  }
  var hue = (255 * turns) / (6 * range);
  if (hue * 6 * range == 255 * turns) {
    hue -= i32((hueRoundsDown[u32(hue) >> 5u] >> (u32(hue) & 31u)) & 1u);
  }
  hue = (hue + shift) & 255;

  let sector = (6 * hue) / 255;
  let fraction = 6 * hue - 255 * sector;
  let low = (2 * value * (255 - saturation) + 255) / 510;
  let falling = (2 * value * (65025 - saturation * fraction) + 65025) / 130050;
  let rising = (2 * value * (65025 - saturation * (255 - fraction)) + 65025) / 130050;
  switch (sector) {
    case 1: { return vec3i(falling, value, low); }
    case 2: { return vec3i(low, value, rising); }
    case 3: { return vec3i(low, falling, value); }
    case 4: { return vec3i(rising, low, value); }
    case 5: { return vec3i(value, low, falling); }
    default: { return vec3i(value, rising, low); } // 0, and 6, which is a full turn
  }
}

// Adjustments begin … end − 1 of the record at `record`; `mean` is the luma that contrast blends with.
fn adjust(packed: u32, record: u32, begin: i32, end: i32, mean: i32, zero: u32) -> u32 {
  var rgb = vec3i(vec3u(packed, packed >> 8u, packed >> 16u) & vec3u(255u));
  for (var k = begin; k < end; k++) {
    let kind = records[record + 9u + u32(k)];
    let bits = records[record + 14u + u32(k)];
    let factor = bitcast<f32>(bits);
    switch (kind) {
      case 1: { rgb = blend(vec3i(0), rgb, factor, zero); }
      case 2: { rgb = blend(vec3i(mean), rgb, factor, zero); }
      case 3: { rgb = blend(vec3i(lumaOf(rgb)), rgb, factor, zero); }
      case 4: { rgb = shiftHue(rgb, bits); }
      default: { rgb = vec3i(lumaOf(rgb)); }
    }
  }
  let bytes = vec3u(rgb);
  return bytes.x | (bytes.y << 8u) | (bytes.z << 16u);
}

fn packedLuma(packed: u32) -> u32 {
  return u32(lumaOf(vec3i(vec3u(packed, packed >> 8u, packed >> 16u) & vec3u(255u))));
}
