// Integer colour arithmetic against the float32 arithmetic of Pillow that it replaces, over all colours.
import { blend, hueByte, hueShift, luma, meanLuma, shiftHue } from "../../../models/image/color.ts";
import { assert, assertEquals } from "../../assert.ts";

const f = Math.fround;

/** Hue byte in float32 and float64 as Pillow's C code mixes them. */
function floatHue(red: number, green: number, blue: number, largest: number, range: number): number {
  const rc = f((largest - red) / range), gc = f((largest - green) / range), bc = f((largest - blue) / range);
  const h = red === largest ? f(bc - gc) : green === largest ? f(2 + rc - bc) : f(4 + gc - rc);
  return Math.trunc(f((h / 6 + 1) % 1) * 255);
}

/** HSV bytes to RGB, likewise. */
function floatRgb(hue: number, saturation: number, value: number): number[] {
  const scaled = (hue * 6) / 255, sector = Math.floor(scaled);
  const fraction = f(scaled - sector), fs = f(saturation / 255);
  const p = Math.floor(value * (1 - fs) + 0.5);
  const q = Math.floor(value * (1 - f(fs * fraction)) + 0.5);
  const t = Math.floor(value * (1 - fs * (1 - fraction)) + 0.5);
  return [[value, t, p], [q, value, p], [p, value, t], [p, q, value], [t, p, value], [value, p, q]][sector % 6];
}

Deno.test("the hue of every colour is Pillow's byte", () => {
  let wrong = 0;
  for (let red = 0; red < 256; red++) {
    for (let green = 0; green < 256; green++) {
      for (let blue = 0; blue < 256; blue++) {
        const largest = Math.max(red, green, blue), range = largest - Math.min(red, green, blue);
        if (range === 0) continue;
        if (hueByte(red, green, blue, largest, range) !== floatHue(red, green, blue, largest, range)) wrong++;
      }
    }
  }
  assertEquals(wrong, 0);
});

Deno.test("hue shifts equal Pillow's way through HSV bytes", () => {
  const pixel = new Uint8Array(3);
  for (let i = 0; i < 300_000; i++) {
    const code = Math.imul(i, 0x9e3779b1) >>> 8; // scattered over all colours
    const red = code & 255, green = code >> 8 & 255, blue = code >> 16 & 255, shift = i % 256;
    pixel.set([red, green, blue]);
    shiftHue(pixel, 0, shift);
    const value = Math.max(red, green, blue), range = value - Math.min(red, green, blue);
    if (range === 0) {
      assertEquals([...pixel], [red, green, blue]);
      continue;
    }
    const hue = (floatHue(red, green, blue, value, range) + shift) & 255;
    const expected = floatRgb(hue, Math.trunc(f(range / value) * 255), value);
    if (pixel[0] !== expected[0] || pixel[1] !== expected[1] || pixel[2] !== expected[2]) {
      assertEquals([...pixel], expected, `${[red, green, blue]} shifted by ${shift}`);
    }
  }
});

Deno.test("hue factors are cut to a byte, towards zero, and wrap", () => {
  assertEquals([0, 0.5, -0.5, 0.1, -0.1, 0.0039, -0.0039].map(hueShift), [0, 127, 129, 25, 231, 0, 0]);
});

Deno.test("blending is exact at its ends and clamps beyond them", () => {
  for (let v = 0; v < 256; v++) {
    assertEquals(blend(77, v, 1), v);
    assertEquals(blend(77, v, 0), 77);
    assertEquals(blend(0, v, 300), Math.min(255, v * 300));
    assertEquals(blend(255, v, 300), v === 255 ? 255 : 0);
  }
});

Deno.test("luma weighs the channels to exactly one, and its mean rounds halves up", () => {
  assertEquals([luma(255, 255, 255), luma(1, 1, 1), luma(0, 0, 0)], [255, 1, 0]);
  assertEquals(meanLuma(Uint8Array.of(1, 1, 1, 2, 2, 2)), 2);
  assertEquals(meanLuma(Uint8Array.of(1, 1, 1, 1, 1, 1, 2, 2, 2)), 1);
  assert(luma(0, 255, 0) > luma(255, 0, 0) && luma(255, 0, 0) > luma(0, 0, 255));
});
