// Colour adjustments of Pillow on 8-bit values, in integers except where Pillow itself rounds to float32.

/** Kinds of adjustment, by the number kernels know them by. */
export const ADJUSTMENT = { brightness: 1, contrast: 2, saturation: 3, hue: 4, gray: 5 } as const;

/** Name of an adjustment. */
export type AdjustmentKind = keyof typeof ADJUSTMENT;

/** Luma as Pillow converts RGB to L. */
export function luma(red: number, green: number, blue: number): number {
  return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16;
}

/** Pillow's blend of one value: `degenerate + factor·(value − degenerate)` in float32, cut to an integer. */
export function blend(degenerate: number, value: number, factor: number): number {
  const mixed = Math.fround(degenerate + Math.fround(factor * (value - degenerate)));
  return mixed <= 0 ? 0 : mixed >= 255 ? 255 : Math.trunc(mixed);
}

/** Byte that a hue factor in turns adds to the hue byte, modulo 256. */
export function hueShift(factor: number): number {
  return Math.trunc(factor * 255) & 255;
}

/**
 * Hue bytes h for which float32 arithmetic lands just below h where the exact hue is h: bit h & 31 of word
 * h >> 5. Everywhere else cutting the exact quotient gives Pillow's byte (tested for all 2^24 colours).
 */
export const HUE_ROUNDS_DOWN = new Uint32Array([
  0xfffffffe,
  0,
  0x11000000,
  0x111,
  0x222aaaaa,
  0x23232222,
  0x22222,
  0, // deno-fmt-ignore
]);

/** Hue byte of a colour whose largest and smallest values differ by `range` > 0. */
export function hueByte(red: number, green: number, blue: number, largest: number, range: number): number {
  let turns = red === largest ? green - blue : green === largest ? 2 * range + blue - red : 4 * range + red - green;
  if (turns < 0) turns += 6 * range; // in sixths of a turn, times range
  const quotient = Math.trunc((255 * turns) / (6 * range));
  const exact = quotient * 6 * range === 255 * turns;
  return exact ? quotient - ((HUE_ROUNDS_DOWN[quotient >> 5] >>> (quotient & 31)) & 1) : quotient;
}

/** Shifts the hue of the pixel at `i` of `data` by `shift` 256ths, through Pillow's lossy HSV bytes. */
export function shiftHue(data: Uint8Array, i: number, shift: number): void {
  const red = data[i], green = data[i + 1], blue = data[i + 2];
  const value = Math.max(red, green, blue);
  const range = value - Math.min(red, green, blue);
  if (range === 0) return; // grey has saturation 0 and comes back as it was
  const saturation = Math.trunc((255 * range) / value); // at least 1, since 255 ≥ value
  const hue = (hueByte(red, green, blue, value, range) + shift) & 255;

  const sector = Math.trunc((6 * hue) / 255);
  const fraction = 6 * hue - 255 * sector; // in 255ths of a sector
  // Rounding halves never arises: the doubled numerators are even, the denominators odd.
  const p = Math.trunc((2 * value * (255 - saturation) + 255) / 510);
  const q = Math.trunc((2 * value * (65025 - saturation * fraction) + 65025) / 130050);
  const t = Math.trunc((2 * value * (65025 - saturation * (255 - fraction)) + 65025) / 130050);
  switch (sector % 6) {
    case 0:
      return put(data, i, value, t, p);
    case 1:
      return put(data, i, q, value, p);
    case 2:
      return put(data, i, p, value, t);
    case 3:
      return put(data, i, p, q, value);
    case 4:
      return put(data, i, t, p, value);
    default:
      return put(data, i, value, p, q);
  }
}

function put(data: Uint8Array, i: number, red: number, green: number, blue: number): void {
  data[i] = red;
  data[i + 1] = green;
  data[i + 2] = blue;
}

/** Mean luma of the whole image, rounded half up: what contrast blends with. */
export function meanLuma(data: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < data.length; i += 3) sum += luma(data[i], data[i + 1], data[i + 2]);
  return Math.trunc(sum / (data.length / 3) + 0.5);
}

/**
 * Applies one adjustment to every pixel, in place.
 *
 * @param factor float32; for `hue` the byte of {@link hueShift}; ignored by `gray`
 */
export function adjust(data: Uint8Array, kind: AdjustmentKind, factor: number): void {
  switch (kind) {
    case "brightness":
      for (let i = 0; i < data.length; i++) data[i] = blend(0, data[i], factor);
      return;
    case "contrast": {
      const mean = meanLuma(data);
      for (let i = 0; i < data.length; i++) data[i] = blend(mean, data[i], factor);
      return;
    }
    case "hue":
      for (let i = 0; i < data.length; i += 3) shiftHue(data, i, factor);
      return;
    case "saturation":
    case "gray":
      for (let i = 0; i < data.length; i += 3) {
        const grey = luma(data[i], data[i + 1], data[i + 2]);
        if (kind === "gray") put(data, i, grey, grey, grey);
        else for (let c = i; c < i + 3; c++) data[c] = blend(grey, data[c], factor);
      }
  }
}
